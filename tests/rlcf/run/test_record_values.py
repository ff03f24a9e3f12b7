"""The values of records: those of other kinds than a run writes are refused, whatever their checksums say."""

import json
import random

import pytest
import torch

import caption.metrics
import classification.metrics
import retrieval.metrics
from rlcf.errors import UserError
from rlcf.run.record_values import is_as_written
from tests.fuzz.files import read_tree, write_tree
from tests.fuzz.forged import changed, forge_memory, forge_record, places, wrong
from tests.fuzz.runs import RUNS
from tests.records import CLASSES, captioned, classified, retrieved, unreadable

IMAGES = ["a.png", "b.png", "c.png"]
TOPS = {"zero_shot_top10": [1, 0, 2], "zero_shot_found": "b.png", "adapted_top10": [0, 2, 1], "adapted_found": "a.png"}
RECORDS = {
    "classification": (
        classified(3, 0, 1, 0),
        {"label": 0, "label_name": "cat"},
        lambda record: classification.metrics.kinds(record, CLASSES, steps=1, views=8),
    ),
    "retrieval": (
        retrieved(0, (2, 1), **TOPS),
        {"query": "text 0"},
        lambda record: retrieval.metrics.kinds(record, [0], IMAGES, steps=1),
    ),
    "captioning": (
        captioned(3, "a dog", "a cat", (0.1, 0.2)),
        {"references": ["reference 3"]},
        lambda record: caption.metrics.kinds(record, steps=1),
    ),
}
ENDINGS = [{}, {"gated": True, "steps": []}, {"settled": True, "steps_taken": 1}, {"status": "non-finite"}]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("task", RECORDS)
def test_a_value_of_another_kind_is_found_at_every_place_of_a_record(task, ending):
    record, about, kinds = RECORDS[task]
    if "gated" in ending and task == "retrieval":  # whose names are those that are left
        ending = ending | {"names": record["names"]}
    record = record | ending
    assert is_as_written(json.loads(json.dumps(record)), b"", about, kinds)
    tried = 0
    for path, value in places(record):
        if path not in ((), ("index",), ("id",)):  # which the reader of lines looks at
            for other in wrong(path, value):
                try:
                    forged = json.loads(changed(record, path, other))
                except (ValueError, RecursionError):
                    continue  # no JSON
                told = isinstance(forged.get("status"), str) and is_as_written(forged, b"", about, kinds)
                assert not told, (path, value, other)
                tried += 1
    assert tried > 50


def test_a_picture_that_could_not_be_read_has_a_reason_and_a_row_of_nan():
    nan, one = torch.tensor([torch.nan, 1.0]).numpy().tobytes(), torch.ones(2).numpy().tobytes()
    record, about, kinds = RECORDS["classification"]
    assert is_as_written(record, one, about, kinds) and not is_as_written(record, nan, about, kinds)
    unread = unreadable(3) | about
    assert is_as_written(unread, nan, about, kinds) and not is_as_written(unread, one, about, kinds)
    for other in (unread | {"reason": 1}, unread | {"more": 1}, {k: v for k, v in unread.items() if k != "reason"}):
        assert not is_as_written(other, nan, about, kinds)


@pytest.mark.parametrize("name", ["classification-runs", "momentum-retrieval-runs", "captioning-runs"])
def test_a_run_does_not_go_on_with_forged_records_or_a_forged_memory(name, tmp_path):
    runs = next(runs for runs in RUNS if runs.name == name)
    runs.make_stopped(tmp_path)
    tree = read_tree(tmp_path / "stopped")
    part = next(file for file in tree if file.endswith("part0.jsonl"))
    memory = part.replace("records.part0.jsonl", "momentum.safetensors")
    for number in range(4):
        what, forged = (forge_record, forge_memory)[number % 2](tree, (part, memory)[number % 2], random.Random(number))
        folder = tmp_path / f"forged{number}"
        write_tree(folder, forged)
        with pytest.raises(UserError) as told:
            runs.run(tmp_path, folder, [])
        said = (r"part0.jsonl is damaged in line \d; delete", r"momentum.safetensors (is damaged|has seen)")[number % 2]
        assert told.match(said), (what, told.value)
