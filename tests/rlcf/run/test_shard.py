"""What the environment says of the processes of a run, of which one may end before the others."""

import itertools
import os
import signal
import time
from datetime import timedelta
from socket import socket

import pytest
import torch

from rlcf.errors import UserError
from rlcf.run.shard import GONE, TORCHRUN, Shard
from tests.tools import in_processes


@pytest.fixture
def environment(monkeypatch):
    """Sets what torchrun would set."""

    def put(**values):
        for name in (*TORCHRUN, "LOCAL_RANK"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


@pytest.mark.parametrize(
    "values",
    [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": "1"}, {"RANK": "0"}, {"WORLD_SIZE": "1", "RANK": ""}, {"LOCAL_RANK": ""}],
)
def test_a_process_on_its_own_is_the_first_of_one(environment, values):
    environment(**values)
    shard = Shard.from_environment()
    assert (shard.rank, shard.count, shard.local_rank) == (0, 1, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"WORLD_SIZE": "2"}, "the environment has WORLD_SIZE=2, with RANK and MASTER_ADDR and MASTER_PORT lacking"),
        ({"RANK": "1"}, "the environment has RANK=1, with WORLD_SIZE and MASTER_ADDR and MASTER_PORT lacking"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "with MASTER_ADDR and MASTER_PORT lacking; start with torchrun, or unset"),
        (
            {"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"},
            "with a RANK beyond WORLD_SIZE; start with torchrun, or unset them",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two in the environment is no number of processes; start with torchrun"),
        ({"WORLD_SIZE": "-1"}, "WORLD_SIZE=-1 in the environment is no number of processes"),
        ({"RANK": "9" * 5000}, "in the environment is no number of processes"),
    ],
)
def test_an_environment_that_torchrun_does_not_make_is_told(environment, values, message):
    environment(**values)
    with pytest.raises(UserError) as error:
        Shard.from_environment()
    assert message in str(error.value)


def test_processes_that_do_not_come_are_told(environment, monkeypatch):
    monkeypatch.setattr("rlcf.run.shard.MEETING", timedelta(seconds=1))
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with pytest.raises(UserError, match=r"^the 2 processes cannot meet \(.*\); start them with torchrun$"):
        Shard.from_environment()


def test_a_wrong_number_of_the_process_on_its_machine_is_told(environment):
    environment(LOCAL_RANK="first")
    with pytest.raises(UserError, match="LOCAL_RANK=first in the environment"):
        _ = Shard.from_environment().local_rank


def ending(rank, end, wait):
    """Joins the processes of a run; one ends, the others wait for it."""

    def work():
        shard = Shard.from_environment()
        shard.wait()
        if shard.rank == rank:
            end()
        wait(shard)

    return work


def refuse():
    raise UserError("list.json is empty; fill it")


WAITS = {
    "barrier": lambda shard: shard.wait(),
    "first": lambda shard: shard.let_first(lambda: None),
    "pieces": lambda shard: list(shard.to_first(["a piece"])),
}


@pytest.mark.parametrize(("rank", "wait"), [(0, "barrier"), (1, "barrier"), (0, "first"), (0, "pieces"), (1, "pieces")])
def test_when_one_process_tells_a_mistake_the_others_end_in_a_line(rank, wait, capfd):
    assert in_processes(2, ending(rank, refuse, WAITS[wait])) == [2, 2]
    told = capfd.readouterr().err.splitlines()
    assert sorted(told) == sorted(["error: list.json is empty; fill it", f"error: {GONE}"])


def test_processes_are_told_what_the_first_found_count_together_and_give_it_their_pieces():
    def work():
        shard = Shard.from_environment()
        assert shard.from_first(lambda: {"rank": shard.rank}) == {"rank": 0}
        for _ in range(2):  # each count starts anew
            got = list(itertools.takewhile(lambda number: number < 20, shard.numbers()))
            pieces = list(shard.to_first([(shard.rank, torch.tensor(number)) for number in got]))
            if shard.first:
                assert sorted(int(number) for _, number in pieces) == list(range(20))
                assert [rank for rank, _ in pieces] == sorted(rank for rank, _ in pieces)
            else:
                assert pieces == []

    assert in_processes(3, work) == [0, 0, 0]


def test_when_the_process_that_counts_has_ended_the_others_end_in_a_line(capfd):
    def work():
        shard = Shard.from_environment()
        numbers = shard.numbers()
        shard.wait()
        if shard.first:
            refuse()
        for _ in numbers:
            time.sleep(0.01)

    assert in_processes(2, work) == [2, 2]
    told = capfd.readouterr().err.splitlines()
    assert [line for line in told if "error" in line][-1] == f"error: {GONE}"


def test_when_one_process_is_killed_the_others_end_in_a_line(capfd):
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    assert in_processes(2, ending(1, kill, WAITS["barrier"])) == [2, -signal.SIGKILL]
    assert capfd.readouterr().err.splitlines() == [f"error: {GONE}"]
