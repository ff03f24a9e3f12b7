"""A short run of the fuzzer, and the fuzzer itself."""

import dataclasses
import json
import os
import signal
import time

import pytest

from rlcf.errors import UserError
from tests.fuzz import command, corpus
from tests.fuzz.corpus import ALL, Corpus
from tests.fuzz.runs import RUNS
from tests.tools import mistake


@pytest.fixture
def fuzz(tmp_path):
    """Runs the command; returns the exit code and the outcomes, without their seconds."""

    def run(*flags, output="fuzz"):
        where = ["--output", str(tmp_path / output), "--workers", "1"]
        with pytest.raises(SystemExit) as end:
            command.main([*where, *map(str, flags)])
        return end.value.code, outcomes(tmp_path / output)

    return run


def outcomes(output):
    lines = (output / "cases.jsonl").read_text().replace(str(output), "").splitlines()[1:]
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


@pytest.mark.slow
def test_hundreds_of_damaged_inputs_are_read_or_told_in_one_sentence(fuzz):
    readers = sorted(ALL.keys() - {runs.name for runs in RUNS})  # whose damaged folders have tests of their own
    code, found = fuzz("--inputs", 400, "--readers", *readers)
    assert [outcome for outcome in found if outcome["how"] == "failed"] == []
    assert code == 0 and {outcome["reader"] for outcome in found} == set(readers)
    count = {how: sum(outcome["how"] == how for outcome in found) for how in ("read", "told")}
    assert count["read"] > 50 and count["told"] > 200


def test_the_functions_at_which_runs_are_stopped_are_there():
    assert all(callable(getattr(*runs.stop[:2])) for runs in RUNS)


def test_an_input_depends_on_seed_and_number_alone(tmp_path):
    kept = Corpus(tmp_path, ["presets", "weights"])
    again = Corpus(tmp_path, ["presets", "weights"])
    assert [kept.case(1, n) for n in range(40)] == [again.case(1, n) for n in range(40)]
    assert [kept.case(1, n) for n in range(40)] != [kept.case(2, n) for n in range(40)]


def test_a_stopped_run_goes_on_and_more_inputs_too(fuzz, tmp_path, monkeypatch):
    flags = ["--readers", "presets", "--inputs", 30]
    _, whole = fuzz(*flags, output="whole")
    read, calls = command.read_all, []

    def stopping(*given):
        for outcome in read(*given):
            calls.append(outcome)
            if len(calls) == 12:
                raise KeyboardInterrupt
            yield outcome

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "read_all", stopping)
        command.main(["--output", str(tmp_path / "stopped"), "--workers", "1", *map(str, flags)])
    assert 0 < len(outcomes(tmp_path / "stopped")) < 30
    with (tmp_path / "stopped" / "cases.jsonl").open("a") as state:
        state.write('{"torn')
    fuzz("--readers", "presets", "--inputs", 20, output="stopped")
    _, found = fuzz(*flags, output="stopped")
    assert found == whole


def test_a_state_of_other_inputs_is_refused(fuzz, capsys):
    fuzz("--readers", "presets", "--inputs", 2)
    capsys.readouterr()
    for other in (["--seed", 1], ["--readers", "weights"]):
        with pytest.raises(UserError, match="is of another --seed or other --readers; choose another --output"):
            fuzz("--readers", "presets", "--inputs", 2, *other)
    assert "above 0" in mistake(lambda: command.main(["--inputs", "0"]), capsys)


def compute():
    while True:
        pass


def grow():
    bytearray(400 * 2**20)


WRONG = [
    ("ZeroDivisionError", lambda: 1 / 0),
    ("hang", compute),
    ("hang", lambda: time.sleep(60)),
    ("crash (-9)", lambda: os.kill(os.getpid(), signal.SIGKILL)),
    ("memory", grow),
]


@pytest.mark.parametrize(("kind", "wrong"), WRONG)
def test_whatever_else_happens_is_a_failure_that_is_kept_and_replayed(kind, wrong, fuzz, tmp_path, monkeypatch, capsys):
    def read(folder, seed, beside):
        file = folder / "preset.yaml"
        if not file.is_file() or file.read_bytes() != b"steps: 3\n":
            wrong()

    seeds = {"whole": {"preset.yaml": b"steps: 3\n"}}
    reader = dataclasses.replace(ALL["presets"], seeds=lambda beside: seeds, read=read)
    monkeypatch.setitem(corpus.ALL, "presets", reader)
    code, found = fuzz("--readers", "presets", "--inputs", 4, "--seconds", 0.2 if kind == "hang" else 60)
    failed = [outcome for outcome in found if outcome["how"] == "failed"]
    kept = {folder.name: folder for folder in (tmp_path / "fuzz" / "failures").iterdir()}
    assert code == 1 and len(found) == len(failed) == 4 and len(kept) == 3
    assert {outcome["kind"].split(" at ")[0] for outcome in failed} == {kind}
    name = f"presets-{failed[0]['number']}"
    assert f"--replay {tmp_path / 'fuzz' / 'failures' / name}" in capsys.readouterr().out
    if kind == "ZeroDivisionError":
        with pytest.raises(SystemExit) as end:
            command.main(["--replay", str(kept[name])])
        assert end.value.code == 1 and "ZeroDivisionError" in capsys.readouterr().out
