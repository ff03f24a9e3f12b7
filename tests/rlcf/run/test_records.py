"""Records: appended, merged, shared by processes, and taken up again."""

import contextlib
import json
import os
import re
import resource
import runpy
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from classification.config import ClassificationConfig
from classification.metrics import TOP1, summarise
from rlcf.errors import UserError
from rlcf.run import finished
from rlcf.run.dealing import shuffled
from rlcf.run.identity import read_identity
from rlcf.run.record_lines import checksum
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from tests.records import classified
from tests.tools import ROOT, in_processes

from .conftest import IDS

ALL = list(range(len(IDS)))


class Killed(BaseException):
    pass


def record(index, **further):
    return {"index": index, "id": IDS[index], "status": "ok", "answer": index / 3, **further}


def rows(index):
    return {"before": torch.tensor([index, index + 0.5]), "after": torch.tensor([1.0 / (index + 1)])}


WIDTHS = {"before": 2, "after": 1}


def work(records, order=ALL, stop_before=None):
    """Records what is left to do."""
    with records:
        for index in records.todo(order):
            if index == stop_before:
                raise KeyboardInterrupt
            records.add(record(index), rows(index) if records.arrays else None)
    return records


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


# ---- records ----


def test_records_are_appended_as_they_come_and_merged_by_index(folder, begin):
    records = begin()
    for index in (2, 0, 1):
        records.add(record(index))
    assert [r["index"] for r in lines(folder / "d" / "records.part0.jsonl")] == [2, 0, 1]
    merged = list(records.finish())
    assert merged == lines(folder / "d" / "records.jsonl") == [record(index) for index in range(3)]
    assert sorted(file.name for file in (folder / "d").iterdir()) == ["identity.json", "records.jsonl", "records.sums"]


@pytest.mark.parametrize("when", [0, 3, 7])
@pytest.mark.parametrize("suffix", ["jsonl", "sums", "f32"])
def test_a_file_that_is_deleted_during_a_run_is_told_and_the_same_command_goes_on(folder, begin, suffix, when):
    records, file = begin(WIDTHS), folder / "d" / f"records.part0.{suffix}"
    told = rf"{file.name} was deleted or changed while the run went on; the same command does again what is missing"
    with pytest.raises(UserError, match=told), records:
        for index in records.todo(ALL):
            records.add(record(index), rows(index))
            if index == when:
                file.unlink()
        records.finish()
    assert list(work(begin(WIDTHS)).finish()) == [record(index) for index in ALL]


def test_every_dataset_has_a_folder_of_its_own_and_a_plain_name_keeps_a_plain_one(folder):
    run = Run(Config(output=str(folder)), Shard())
    names = ["I", "coco", "nocaps-in-domain", "folder", "folder:a-b", "folder:a b", "folder:a/b", "folder:a%20b"]
    names += ["folder:äö.v2", "json:a-b", "json:a:b", "json:" + "x" * 300, "json:" + "x" * 301, "folder:a\udcffb"]
    found = [run.folder_of(name) for name in names]
    assert len(set(found)) == len(names) and {place.parent for place in found} == {folder}
    plain = ["I", "coco", "nocaps-in-domain", "folder", "folder-a-b"]
    assert [place.name for place in found[:5]] == plain and found[8].name == "folder-äö.v2"
    for name in names:
        run.records(name, IDS)
    assert len(list(folder.glob("*/identity.json"))) == len(names)


def test_starting_again_goes_on_with_what_is_left_in_the_same_order(begin):
    order = [3, 1, 4, 0, 2]
    with pytest.raises(KeyboardInterrupt):
        work(begin(), order, stop_before=4)
    assert list(begin().todo(order)) == [4, 0, 2]


def test_an_interrupted_run_ends_with_the_records_of_an_uninterrupted_one(folder, begin):
    for stop in (1, 5, None):
        with contextlib.suppress(KeyboardInterrupt):
            work(begin(WIDTHS), stop_before=stop)
    records = begin(WIDTHS)
    assert list(records.finish()) == [record(index) for index in ALL]
    arrays = records.saved_arrays()
    for name in WIDTHS:
        assert torch.equal(arrays[name], torch.stack([rows(index)[name] for index in ALL]))


def test_a_finished_run_has_nothing_to_do_and_its_records_again(folder, begin):
    work(begin()).finish()
    before = (folder / "d" / "records.jsonl").read_bytes()
    records = begin()
    assert records.complete and list(records.todo(ALL)) == []
    assert list(records.finish()) == [record(index) for index in ALL]
    assert (folder / "d" / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("kept", range(1, len(json.dumps(record(2))) + 1, 7))
def test_half_a_line_of_a_killed_run_is_dropped(folder, begin, kept):
    for index in range(3):
        begin(WIDTHS).add(record(index), rows(index))
    part = folder / "d" / "records.part0.jsonl"
    torn = part.read_text().splitlines(keepends=True)
    part.write_text("".join(torn[:2]) + torn[2][:kept])
    records = begin(WIDTHS)
    assert records.count == 2
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
    assert list(begin(WIDTHS).todo(ALL)) == ALL[1:]


def test_a_record_without_arrays_has_rows_of_nan(begin):
    records = begin(WIDTHS)
    records.add(record(0, status="unreadable"))
    records.add(record(1), rows(1))
    records.finish()
    arrays = records.saved_arrays()
    assert arrays["before"].isnan().tolist() == [[True, True], [False, False]]
    assert arrays["after"].isnan().tolist() == [[True], [False]]


def test_saved_arrays_carry_what_describes_them(folder, begin):
    work(begin(WIDTHS, described={"classnames": '["ant", "sea lion"]'})).finish()
    with safe_open(folder / "d" / "logits.safetensors", "pt") as file:
        assert file.metadata() == {"classnames": '["ant", "sea lion"]'}


@pytest.mark.parametrize("bad", [b'{"index": 1,\n', b"\xff\xfe\x00\n"])
@pytest.mark.parametrize("name", ["records.jsonl", "records.part0.jsonl"])
def test_a_damaged_line_is_told_with_its_number(folder, begin, name, bad):
    begin()
    file = folder / "d" / name
    whole, key = json.dumps(record(0)).encode(), read_identity(folder / "d").key
    file.write_bytes(whole + b"\n" + bad + json.dumps(record(2)).encode() + b"\n")
    file.with_suffix(".sums").write_bytes(checksum(key, whole, b"") * 3)
    with pytest.raises(UserError, match=r"d/records.* is damaged in line 2; delete its folder"):
        begin()


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("ids", [["other.png", *IDS[1:]], IDS[1:], [*IDS, "new.png"]])
def test_a_run_does_not_go_on_with_other_samples(folder, begin, finished, ids):
    records = work(begin())
    if finished:
        records.finish()
    if len(ids) > len(IDS):  # a trial that grows; the identity tells a list that does
        assert list(begin(ids=ids).todo(range(len(ids)))) == [len(IDS)]
    else:
        with pytest.raises(UserError, match=r"run/d was begun with other samples .* choose another --output"):
            begin(ids=ids)


def test_parts_that_a_killed_merge_left_behind_change_nothing(folder, begin):
    work(begin()).finish()
    (folder / "d" / "records.part0.jsonl").write_text(json.dumps(record(0)) + "\n")
    assert len(list(begin().finish())) == len(IDS)
    assert not list((folder / "d").glob("*part*"))


def test_a_merge_that_was_killed_is_done_again(folder, begin, monkeypatch):
    records = work(begin(WIDTHS))
    monkeypatch.setattr(finished, "write_atomically", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        records.finish()
    monkeypatch.undo()
    assert list(begin(WIDTHS).finish()) == [record(index) for index in ALL]


# ---- many samples ----


def stopped_run(folder, count):
    """The start of a run of classification that has records of `count` samples, and their bytes."""
    ids = [f"{index}.png" for index in range(count)]

    def start():
        return Run(ClassificationConfig(output=str(folder), datasets=["d"]), Shard()).records(
            "d", ids, numbers=TOP1.numbers
        )

    start()
    ends = [json.dumps(classified(0, i % 3, (i + i % 2) % 3, i % 3)).partition('"label"')[2] for i in range(6)]
    key, part = read_identity(folder / "d").key, folder / "d" / "records.part0.jsonl"
    with part.open("wb") as file, part.with_suffix(".sums").open("wb") as sums:
        for index in reversed(range(count)):
            line = f'{{"index": {index}, "id": "{index}.png", "label"{ends[index % 6]}'.encode()
            file.write(line + b"\n")
            sums.write(checksum(key, line, b""))
    return start, part.stat().st_size


def test_a_run_begins_with_200_000_records_and_holds_none_of_them(folder):
    count = 200_000
    start, size = stopped_run(folder, count)

    def process():
        before = int(re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text())[1])
        records = start()
        todo = records.todo(range(count))
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        assert (records.count, len(todo), records.shown.n) == (count, 0, count)
        assert grown < 150 * count < size / 4, grown

    assert in_processes(1, process) == [0]


def test_neither_the_merge_nor_the_metrics_hold_the_records(folder):
    count = 3000
    start, size = stopped_run(folder, count)
    records = start()
    tracemalloc.start()
    records.todo(range(count))
    summary = summarise(records.finish())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (summary["n"], summary["zero_shot"]["top1"], summary["fixed"]) == (count, 50.0, count // 2)
    assert records.shown == (count, 50.0 * count, 100.0 * count)
    assert peak < 2 * size, peak  # parsed, they are 14 times that


# ---- shards ----


def of_this_process(folder, name="d", **settings):
    """The records of a process that torchrun has started, with arrays."""
    run = Run(Config(output=str(folder), **settings), Shard.from_environment())
    return run.records(name, IDS, arrays=WIDTHS)


def test_the_records_and_arrays_of_several_processes_are_merged_by_index(folder):
    def process():
        records = work(of_this_process(folder), shuffled(len(IDS), 0, None))
        assert list(records.finish()) == [record(index) for index in ALL]
        assert records.saved_arrays()["before"][:, 0].tolist() == ALL

    assert in_processes(3, process) == [0, 0, 0]
    left = ["identity.json", "logits.safetensors", "records.jsonl", "records.sums"]
    assert sorted(file.name for file in (folder / "d").iterdir()) == left
    assert (folder / "config.yaml").exists() and len((folder / "log.txt").read_text().splitlines()) == 1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_a_run_may_go_on_with_another_number_of_processes(folder, begin, processes):
    def stopped():
        records = of_this_process(folder)
        for number, index in enumerate(records.todo(ALL)):
            if number == 2:
                raise KeyboardInterrupt
            records.add(record(index), rows(index))

    def continued():
        work(of_this_process(folder)).finish()

    codes = in_processes(3, stopped)
    assert 130 in codes and 0 < begin(WIDTHS).count <= 6
    assert in_processes(processes, continued) == [0] * processes
    records = begin(WIDTHS)
    assert list(records.finish()) == [record(index) for index in ALL]
    assert records.saved_arrays()["before"][:, 0].tolist() == ALL


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

from rlcf.run.settings import Config
from rlcf.run.dealing import shuffled
from rlcf.run.run import Run
from rlcf.run.shard import Shard

shard = Shard.from_environment()
run = Run(Config(output=sys.argv[1]), shard)
ids = [f"{i}.png" for i in range(20)]
records = run.records("d", ids, arrays={"x": 1})
with records:
    for index in records.todo(shuffled(20, 0, None)):
        records.add({"index": index, "id": ids[index], "status": "ok"}, {"x": torch.tensor([index / 7])})
merged = list(records.finish())
assert [r["index"] for r in merged] == list(range(20)), merged
if shard.first:
    run.report("d", {"n": len(merged), "processes": shard.count})
"""


@pytest.mark.slow
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
    for file in ("d/records.jsonl", "d/logits.safetensors", "d/records.sums", "d/identity.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    results = json.loads((tmp_path / "two" / "results.json").read_text())
    assert results["datasets"]["d"] == {"n": 20, "processes": 2}
    left = ["identity.json", "logits.safetensors", "records.jsonl", "records.sums"]
    assert sorted(file.name for file in (tmp_path / "two" / "d").iterdir()) == left
