import contextlib
import dataclasses
import json
import logging
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from rlcf.adapt.episode import AdamW, Episodes, Momentum
from rlcf.errors import UserError
from rlcf.run import records as runs
from rlcf.run.config import Config, read_preset
from rlcf.run.files import save_atomically, write_atomically
from rlcf.run.records import Run, Shard, shuffled, versions

ROOT = Path(__file__).resolve().parents[3]
IDS = [f"{letter}.png" for letter in "abcdefgh"]
ALL = list(range(len(IDS)))


class Alone(Shard):
    """One of several processes that waits for nobody."""

    def wait(self):
        pass


class Killed(BaseException):
    pass


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def begin(folder):
    """Starts or continues a run; returns its records of dataset "d"."""

    def start(arrays=None, shard=None, buffer=None, **settings):
        episodes = Episodes({"p": nn.Parameter(torch.zeros(1))}, AdamW(lr=0.1), 1, momentum=buffer)
        run = Run(Config(output=str(folder), **settings), shard or Shard())
        return run.records("d", episodes, arrays)

    return start


def record(index, **further):
    return {"index": index, "id": IDS[index], "status": "ok", "answer": index / 3, **further}


def rows(index):
    return {"before": torch.tensor([index, index + 0.5]), "after": torch.tensor([1.0 / (index + 1)])}


WIDTHS = {"before": 2, "after": 1}


def work(records, order=ALL, stop_before=None):
    """Records what is left to do."""
    with records:
        for index in records.todo(order, IDS):
            if index == stop_before:
                raise KeyboardInterrupt
            records.add(record(index), rows(index) if records.arrays else None)
    return records


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


# ---- the config ----


def test_the_config_is_in_the_run_folder_before_the_first_record(folder):
    config = Config(output=str(folder), lr=0.25, reward=["a", "b"])
    Run(config, Shard())
    assert read_preset(Config, str(folder / "config.yaml")) == dataclasses.asdict(config)


def test_the_log_names_each_command_and_nothing_is_printed(folder, begin, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "--steps", "3"])
    begin()
    begin()
    runs.logger.info("skipped: x.jpg")
    log = (folder / "log.txt").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in log] == ["command: main.py --steps 3"] * 2 + ["skipped: x.jpg"]
    assert capsys.readouterr() == ("", "")


def test_a_new_run_logs_into_its_own_folder_alone(tmp_path):
    for name in ("first", "second"):
        Run(Config(output=str(tmp_path / name)), Shard())
    runs.logger.info("here")
    assert "here" in (tmp_path / "second" / "log.txt").read_text()
    assert "here" not in (tmp_path / "first" / "log.txt").read_text()
    assert len(logging.getLogger("rlcf").handlers) == 1


@pytest.mark.parametrize(
    ("key", "before", "now"),
    [
        ("steps", 3, 4),
        ("lr", 1e-5, 1e-4),
        ("seed", 0, 1),
        ("student", "ViT-B/16", "RN50"),
        ("reward", ["ViT-L/14"], ["ViT-L/14", "RN50"]),
        ("reward_weights", None, [1.0]),
        ("momentum", False, True),
        ("limit", None, 3),
        ("precision", "auto", "bf16"),
    ],
)
def test_a_changed_config_refuses_to_mix_and_names_the_key(folder, begin, key, before, now):
    begin(**{key: before}).add(record(0))
    with pytest.raises(UserError) as error:
        begin(**{key: now})
    text = f"{folder} holds a run with another config: {key} ({before} -> {now}); choose another --output"
    assert str(error.value) == text
    assert read_preset(Config, str(folder / "config.yaml"))[key] == before


def test_all_changed_keys_are_named(begin):
    begin().add(record(0))
    with pytest.raises(UserError, match=r"lr \(1e-05 -> 0.1\), steps \(3 -> 9\);"):
        begin(steps=9, lr=0.1)


@pytest.mark.parametrize("changed", [{"workers": 7}, {"skip_bad_images": True}])
def test_settings_that_no_record_depends_on_may_change(begin, changed):
    begin().add(record(0))
    assert begin(**changed).done == {0}


def test_a_run_without_records_takes_another_config(folder, begin):
    begin(steps=3)
    begin(steps=4)
    assert read_preset(Config, str(folder / "config.yaml"))["steps"] == 4


def test_a_run_folder_may_be_moved(folder, begin, tmp_path):
    begin().add(record(0))
    folder.rename(tmp_path / "moved")
    Run(Config(output=str(tmp_path / "moved")), Shard())


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_told(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        Run(Config(output=str(tmp_path / place)), Shard())
    assert str(error.value).startswith(f"cannot write to the run folder {tmp_path / place} (")
    assert str(error.value).endswith("choose another --output")


@pytest.mark.parametrize("name", ["log.txt", "config.yaml"])
def test_an_output_whose_files_cannot_be_written_is_told(folder, name):
    (folder / name).mkdir(parents=True)
    with pytest.raises(UserError, match="cannot write to the run folder"):
        Run(Config(output=str(folder)), Shard())


# ---- records ----


def test_records_are_appended_as_they_come_and_merged_by_index(folder, begin):
    records = begin()
    for index in (2, 0, 1):
        records.add(record(index))
    assert [r["index"] for r in lines(folder / "d" / "records.part0.jsonl")] == [2, 0, 1]
    assert records.finish() == lines(folder / "d" / "records.jsonl") == [record(index) for index in range(3)]
    assert sorted(file.name for file in (folder / "d").iterdir()) == ["records.jsonl"]


def test_a_dataset_with_a_slash_or_colon_has_one_folder(folder, begin):
    run = Run(Config(output=str(folder)), Shard())
    records = run.records("folder:a/b", Episodes({}, AdamW(lr=0.1), 1))
    assert records.folder == folder / "folder-a-b"


def test_starting_again_goes_on_with_what_is_left_in_the_same_order(begin):
    order = [3, 1, 4, 0, 2]
    with pytest.raises(KeyboardInterrupt):
        work(begin(), order, stop_before=4)
    assert begin().todo(order, IDS) == [4, 0, 2]


def test_an_interrupted_run_ends_with_the_records_of_an_uninterrupted_one(folder, begin):
    for stop in (1, 5, None):
        with contextlib.suppress(KeyboardInterrupt):
            work(begin(WIDTHS), stop_before=stop)
    records = begin(WIDTHS)
    assert records.finish() == [record(index) for index in ALL]
    arrays = records.saved_arrays()
    for name in WIDTHS:
        assert torch.equal(arrays[name], torch.stack([rows(index)[name] for index in ALL]))


def test_a_finished_run_has_nothing_to_do_and_its_records_again(folder, begin):
    work(begin()).finish()
    before = (folder / "d" / "records.jsonl").read_bytes()
    records = begin()
    assert records.complete and records.todo(ALL, IDS) == []
    assert records.finish() == [record(index) for index in ALL]
    assert (folder / "d" / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("kept", range(1, len(json.dumps(record(2))) + 1, 7))
def test_half_a_line_of_a_killed_run_is_dropped(folder, begin, kept):
    for index in range(3):
        begin(WIDTHS).add(record(index), rows(index))
    part = folder / "d" / "records.part0.jsonl"
    torn = part.read_text().splitlines(keepends=True)
    part.write_text("".join(torn[:2]) + torn[2][:kept])
    records = begin(WIDTHS)
    assert records.done == {0, 1}
    work(records).finish()
    assert lines(folder / "d" / "records.jsonl") == [record(index) for index in ALL]
    assert records.saved_arrays()["before"][:, 0].tolist() == ALL


@pytest.mark.parametrize("done", [0, 2])
@pytest.mark.parametrize("bytes_of_next", [1, 11, 12])
def test_arrays_without_their_record_are_dropped(folder, begin, done, bytes_of_next):
    records = begin(WIDTHS)
    for index in range(done):
        records.add(record(index), rows(index))
    with (folder / "d" / "records.part0.f32").open("ab") as stream:
        stream.write(b"\7" * bytes_of_next)
    records = work(begin(WIDTHS))
    records.finish()
    assert records.saved_arrays()["before"][:, 0].tolist() == ALL


def test_records_without_their_arrays_are_done_again(folder, begin):
    records = begin(WIDTHS)
    for index in range(3):
        records.add(record(index), rows(index))
    file = folder / "d" / "records.part0.f32"
    file.write_bytes(file.read_bytes()[: 12 + 5])
    assert begin(WIDTHS).done == {0}


def test_a_record_without_arrays_has_rows_of_nan(begin):
    records = begin(WIDTHS)
    records.add(record(0, status="unreadable"))
    records.add(record(1), rows(1))
    records.finish()
    arrays = records.saved_arrays()
    assert arrays["before"].isnan().tolist() == [[True, True], [False, False]]
    assert arrays["after"].isnan().tolist() == [[True], [False]]


def test_saved_arrays_carry_the_class_names(folder, begin):
    records = begin(WIDTHS)
    write_atomically(folder / "d" / "classnames.txt", "ant\nsea lion\n")
    work(records).finish()
    with safe_open(folder / "d" / "logits.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classnames"]) == ["ant", "sea lion"]


@pytest.mark.parametrize("bad", [b'{"index": 1,\n', b"\xff\xfe\x00\n"])
@pytest.mark.parametrize("name", ["records.jsonl", "records.part0.jsonl"])
def test_a_damaged_line_is_told_with_its_number(folder, begin, name, bad):
    begin()
    file = folder / "d" / name
    file.write_bytes(json.dumps(record(0)).encode() + b"\n" + bad + json.dumps(record(2)).encode() + b"\n")
    with pytest.raises(UserError, match=r"d/records.* is damaged in line 2; delete its folder"):
        begin()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("ids", [["other.png", *IDS[1:]], IDS[1:], [*IDS, "new.png"]])
def test_a_run_does_not_go_on_with_other_samples(folder, begin, finished, ids):
    records = work(begin())
    if finished:
        records.finish()
    if len(ids) > len(IDS) and not finished:
        assert begin().todo(list(range(len(ids))), ids) == [len(IDS)]
    else:
        with pytest.raises(UserError, match=r"run/d was begun with other samples .* choose another --output"):
            begin().todo(list(range(len(ids))), ids)


def test_parts_that_a_killed_merge_left_behind_change_nothing(folder, begin):
    work(begin()).finish()
    (folder / "d" / "records.part0.jsonl").write_text(json.dumps(record(0)) + "\n")
    assert len(begin().finish()) == len(IDS)
    assert not list((folder / "d").glob("*part*"))


def test_a_merge_that_was_killed_is_done_again(folder, begin, monkeypatch):
    records = work(begin(WIDTHS))
    monkeypatch.setattr(runs, "write_atomically", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        records.finish()
    monkeypatch.undo()
    assert begin(WIDTHS).finish() == [record(index) for index in ALL]


# ---- shards ----


def test_shards_share_the_samples_in_their_order(begin):
    order = [5, 3, 1, 7, 0, 2, 6, 4]
    assert [begin(shard=Alone(rank, 3)).todo(order, IDS) for rank in range(3)] == [[5, 7, 6], [3, 0, 4], [1, 2]]


def test_shards_records_and_arrays_are_merged_by_index(folder, begin):
    shards = [begin(WIDTHS, Alone(rank, 3)) for rank in range(3)]
    for shard in shards:
        work(shard, shuffled(len(IDS), 0, None))
    parts = {f"records.part{rank}{suffix}" for rank in range(3) for suffix in (".jsonl", ".f32")}
    assert {file.name for file in (folder / "d").iterdir()} == parts
    assert [shard.finish() for shard in shards] == [[record(index) for index in ALL]] * 3
    assert shards[2].saved_arrays()["before"][:, 0].tolist() == ALL


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_may_go_on_with_another_number_of_processes(begin, processes):
    started = [begin(WIDTHS, Alone(rank, 3)) for rank in range(3)]
    for rank, records in enumerate(started[:2]):
        with pytest.raises(KeyboardInterrupt):
            work(records, stop_before=3 + rank)
    shards = [begin(WIDTHS, Alone(rank, processes)) for rank in range(processes)]
    shares = [shard.todo(ALL, IDS) for shard in shards]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for shard in shards:
        work(shard)
    assert shards[0].finish() == [record(index) for index in ALL]
    assert shards[0].saved_arrays()["before"][:, 0].tolist() == ALL


def test_the_first_process_alone_writes_config_and_log(folder, begin):
    begin(shard=Alone(1, 2))
    assert not (folder / "config.yaml").exists() and not (folder / "log.txt").exists()
    begin(shard=Alone(0, 2))
    assert (folder / "config.yaml").exists() and (folder / "log.txt").exists()


def test_without_torchrun_there_is_one_shard(monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    shard = Shard.from_environment()
    assert (shard.rank, shard.count, shard.local_rank, shard.first) == (0, 1, 0, True)
    shard.wait()


PROCESS = """
import sys
from pathlib import Path

import torch

from rlcf.run.config import Config
from rlcf.adapt.episode import AdamW, Episodes
from rlcf.run.records import Run, Shard, shuffled

shard = Shard.from_environment()
run = Run(Config(output=sys.argv[1]), shard)
records = run.records("d", Episodes({}, AdamW(lr=0.1), 1), {"x": 1})
ids = [f"{i}.png" for i in range(20)]
with records:
    for index in records.todo(shuffled(20, 0, None), ids):
        records.add({"index": index, "id": ids[index], "status": "ok"}, {"x": torch.tensor([index / 7])})
if shard.count > 1:
    assert len(list(Path(sys.argv[1], "d").glob(f"records.part{shard.rank}.*"))) == 2
merged = records.finish()
assert [r["index"] for r in merged] == list(range(20)), merged
if shard.first:
    run.report("d", {"n": len(merged), "processes": shard.count})
"""


def test_two_processes_of_torchrun_write_the_records_of_one(tmp_path, monkeypatch):
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, str(script), str(tmp_path / "two")],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one")])
    runpy.run_path(str(script))
    for file in ("d/records.jsonl", "d/logits.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["datasets"]["d"] == {"n": 20, "processes": 2}
    assert sorted(file.name for file in (tmp_path / "two" / "d").iterdir()) == ["logits.safetensors", "records.jsonl"]


# ---- momentum ----

DIRECTIONS = [-1.0, 2.0, -3.0, math.nan, 1.0, -2.0, -1.0, 3.0]
"""What pulls the weight, by sample."""


class Stream:
    """Episodes over one weight with a momentum buffer, recorded; `stop` = (sample, where) breaks off there."""

    def __init__(self, begin, how="interrupt"):
        self.records = begin(WIDTHS, buffer=Momentum(decay=0.3, every=3, weight=0.7))
        self.episodes = self.records.episodes
        self.weight = self.episodes.tuned["p"]
        self.how = how

    def go(self, stop=(None, None)):
        error = {"interrupt": KeyboardInterrupt, "kill": Killed}[self.how]

        def reach(index, where):
            if stop == (index, where):
                raise error

        def loss(index):
            reach(index, "loss")
            return DIRECTIONS[index] * self.weight.sum()

        def answer(index):
            reach(index, "answer")
            return self.weight.item()

        try:
            if self.how == "interrupt":
                self.records.__enter__()
            for index in self.records.todo(ALL, IDS):
                value = self.episodes.run(lambda step, index=index: loss(index), lambda index=index: answer(index))
                reach(index, "record")
                status = "non-finite" if value is None else "ok"
                self.records.add({"index": index, "id": IDS[index], "status": status, "p": value}, rows(index))
        finally:
            if self.how == "interrupt":
                self.records.__exit__()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def uninterrupted(tmp_path, folder, begin):
    stream = Stream(begin)
    stream.go()
    result = stream.episodes.state_dict(), stream.records.finish()
    folder.rename(tmp_path / "uninterrupted")
    return result


@pytest.mark.parametrize("how", ["interrupt", "kill"])
@pytest.mark.parametrize("where", ["loss", "answer", "record"])
def test_a_run_with_momentum_goes_on_bit_for_bit_where_it_was_broken_off(
    folder, begin, uninterrupted, how, where, tmp_path
):
    state, expected = uninterrupted
    for stop in range(len(IDS)):
        if math.isnan(DIRECTIONS[stop]) and where == "answer":
            continue  # no answer is asked of a loss that is not finite
        with pytest.raises((KeyboardInterrupt, Killed)):
            Stream(begin, how).go((stop, where))
        again = Stream(begin, how)
        again.go()
        assert same(again.episodes.state_dict(), state)
        assert again.records.finish() == expected
        assert again.records.saved_arrays()["before"][:, 0].tolist() == ALL
        folder.rename(tmp_path / f"stop{stop}")


def test_records_newer_than_the_momentum_state_come_again_after_a_kill(begin):
    with pytest.raises(Killed):
        Stream(begin, "kill").go((5, "loss"))
    assert Stream(begin).records.done == {0, 1, 2}


def test_an_interrupted_run_with_momentum_loses_no_record(begin):
    with pytest.raises(KeyboardInterrupt):
        Stream(begin).go((5, "loss"))
    assert Stream(begin).records.done == {0, 1, 2, 3, 4}


def test_the_momentum_state_goes_with_the_parts(folder, begin):
    stream = Stream(begin)
    stream.go()
    assert (folder / "d" / "momentum.safetensors").exists()
    stream.records.finish()
    names = sorted(file.name for file in (folder / "d").iterdir())
    assert names == ["logits.safetensors", "records.jsonl"]


# ---- results ----


def test_results_hold_every_dataset_the_command_the_seed_and_the_versions(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "--seed", "5"])
    for name, n in (("A", 1), ("R", 2), ("A", 3)):
        Run(Config(output=str(folder), seed=5), Shard()).report(name, {"n": n})
    results = json.loads((folder / "results.json").read_text())
    assert results["datasets"] == {"A": {"n": 3}, "R": {"n": 2}}
    assert (results["command"], results["seed"]) == ("main.py --seed 5", 5)
    assert results["versions"] == versions() and results["versions"]["torch"] == torch.__version__.split("+")[0]
    assert 'R: {"n": 2}' in (folder / "log.txt").read_text()


def test_a_package_without_metadata_runs_from_source():
    assert versions(["no-such-package"])["no-such-package"] == "source"


@pytest.mark.parametrize("write", [write_atomically, save_atomically])
def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch, write):
    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write(file, "new" if write is write_atomically else {"x": torch.ones(1)})
    assert file.read_text() == "old"


def test_written_files_are_whole_and_alone(tmp_path):
    write_atomically(tmp_path / "a.txt", "new\n")
    write_atomically(tmp_path / "a.txt", "newer\n")
    save_atomically(tmp_path / "b.safetensors", {"x": torch.arange(3)}, {"about": "it"})
    assert (tmp_path / "a.txt").read_text() == "newer\n"
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.get_tensor("x").tolist() == [0, 1, 2] and file.metadata() == {"about": "it"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "b.safetensors"]


def test_the_order_of_samples_is_a_permutation_that_the_seed_decides():
    assert sorted(shuffled(50, 0, None)) == list(range(50))
    assert shuffled(50, 0, None) == shuffled(50, 0, None) != shuffled(50, 1, None)
    assert shuffled(50, 0, 7) == shuffled(50, 0, None)[:7]
    assert shuffled(3, 0, 7) == shuffled(3, 0, None)
