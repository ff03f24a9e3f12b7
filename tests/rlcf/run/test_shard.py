"""Processes of one run, of which one ends before the others."""

import os
import signal

import pytest

from rlcf.errors import UserError
from rlcf.run.shard import GONE, Shard
from tests.tools import in_processes, mistake


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


WAITS = {"barrier": lambda shard: shard.wait(), "first": lambda shard: shard.let_first(lambda: None)}


@pytest.mark.parametrize(("rank", "wait"), [(0, "barrier"), (1, "barrier"), (0, "first")])
def test_when_one_process_tells_a_mistake_the_others_end_in_a_line(rank, wait, capfd):
    assert in_processes(2, ending(rank, refuse, WAITS[wait])) == [2, 2]
    told = capfd.readouterr().err.splitlines()
    assert sorted(told) == sorted(["error: list.json is empty; fill it", f"error: {GONE}"])


def test_when_one_process_is_killed_the_others_end_in_a_line(capfd):
    kill = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    assert in_processes(2, ending(1, kill, WAITS["barrier"])) == [2, -signal.SIGKILL]
    assert capfd.readouterr().err.splitlines() == [f"error: {GONE}"]


@pytest.mark.parametrize(("name", "value"), [("WORLD_SIZE", "2"), ("WORLD_SIZE", "many"), ("RANK", "first")])
def test_an_environment_of_processes_that_cannot_join_is_told(name, value, monkeypatch, capsys):
    for variable in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv(name, value)
    told = mistake(Shard.from_environment, capsys)
    assert told.startswith("the processes of WORLD_SIZE ") and "unset WORLD_SIZE" in told
