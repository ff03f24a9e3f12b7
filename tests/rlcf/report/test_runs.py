"""Reading run folders: what is there, and one sentence for each mistake."""

import json
import os
import re

import pytest

from caption.training.config import TrainConfig
from rlcf.report.main import main
from rlcf.report.runs import read_runs, short_names
from rlcf.run.config import to_yaml
from tests.records import captioned, classified

RECORDS = [classified(0, 0, 1, 0), classified(1, 1, 1, 1)]


def test_a_run_is_read_with_its_settings_results_and_records(write_run, tmp_path):
    (run,) = read_runs([write_run({"folder:b": RECORDS, "folder:a": RECORDS}, method="tpt")])
    assert (run.name, run.task, run.finished, run.config["method"]) == ("run", "classification", True, "tpt")
    assert [dataset.name for dataset in run.datasets] == ["folder:b", "folder:a"]
    assert run.datasets[0].records == RECORDS and run.datasets[0].images == tmp_path / "images"
    assert run.results["datasets"]["folder:a"] == {"n": 2}


def test_a_run_that_is_not_finished_is_read_as_far_as_it_is(write_run):
    folder = write_run({"folder": RECORDS}, finished=False)
    with (folder / "folder" / "records.part0.jsonl").open("a") as stream:
        stream.write('{"index": 2, "id"')  # what a process has just begun to write
    (run,) = read_runs([folder])
    assert not run.finished and run.datasets[0].records == RECORDS


def test_runs_are_named_by_as_few_folders_as_tell_them_apart(tmp_path):
    assert short_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert short_names([tmp_path / "a" / "one", tmp_path / "a" / "two"]) == ["one", "two"]


def test_no_run_folder_is_told(told, tmp_path):
    assert told(tmp_path / "nothing").startswith(f"no run folder {tmp_path}/nothing; give the folder that a run wrote")
    assert f"{tmp_path} is no run folder: it has no config.yaml" in told(tmp_path)


def test_a_run_of_something_else_is_told(told, tmp_path):
    (tmp_path / "config.yaml").write_text(to_yaml(TrainConfig()))
    assert "is no run of classification, retrieval or captioning" in told(tmp_path)


@pytest.mark.parametrize("content", ["a: [", "- a", "\x00"])
def test_a_damaged_config_is_told(write_run, told, content):
    folder = write_run({"folder": RECORDS})
    (folder / "config.yaml").write_text(content)
    assert told(folder) == f"{folder}/config.yaml is damaged; the run's command writes it anew"


def test_a_run_without_records_is_told(write_run, told):
    folder = write_run({})
    assert told(folder) == f"{folder} has no records yet; start its run again: it goes on where it was"


@pytest.mark.parametrize("finished", [True, False])
def test_an_edited_record_is_told_with_its_line(write_run, told, finished):
    folder = write_run({"folder": RECORDS}, finished=finished)
    (file,) = (folder / "folder").glob("records*.jsonl")
    file.write_text(file.read_text().replace('"label": 1', '"label": 2'))
    assert f"{file} is damaged in line 2" in told(folder)


def test_a_record_of_an_earlier_version_is_told(write_run, told):
    old = {key: value for key, value in RECORDS[0].items() if key != "names"}
    assert "holds records that this version of rlcf cannot read (sample 0: KeyError 'names')" in told(
        write_run({"folder": [old]})
    )


def test_runs_of_different_tasks_are_told(write_run, told):
    first = write_run({"folder": RECORDS}, "first")
    second = write_run({"folder": [captioned(0, "a", "b", (0.1, 0.2))]}, "second", "captioning")
    said = told(first, second)
    assert said.startswith(f"{first} is a run of classification, {second} one of captioning; a report compares runs of")


def test_a_run_that_is_given_twice_is_told(write_run, told):
    folder = write_run({"folder": RECORDS})
    assert told(folder, f"{folder}/../run") == f"{folder}/../run was given twice; give each run once"


def test_results_that_are_damaged_are_done_without(write_run):
    folder = write_run({"folder": RECORDS})
    (folder / "results.json").write_text('{"datasets":')
    (folder / "folder" / "images.json").write_text(json.dumps([1]))
    (run,) = read_runs([folder])
    assert run.results == {} and run.datasets[0].images is None


DEEP = "[" * 5000


@pytest.mark.parametrize("name", ["results.json", "json-x/each-scores.json", "json-x/images.json"])
@pytest.mark.parametrize("content", [DEEP, '{"a": 1e999, "json:x": 7}', '{"0.png": {"CIDEr": "\\ud800"}}', "null"])
def test_what_stands_beside_the_records_is_read_or_done_without(write_run, report, name, content):
    folder = write_run({"json:x": [captioned(0, "a", "b", (0.1, 0.2))]}, task="captioning")
    (folder / name).write_text(content)
    assert "a dog" not in report(folder).page


@pytest.mark.parametrize(
    ("task", "record"),
    [
        ("captioning", captioned(0, "a", "b", ("1", 0.2))),
        ("captioning", captioned(0, "a", "b", (10**400, 0.2))),
        ("classification", classified(0, 0, 1, 0, zero_shot_confidence=[])),
        ("classification", classified(0, 0, 1, 0, seconds=True)),
        (
            "classification",
            classified(0, 0, 1, 0, rewards=(0.5, 0.5, 0.5), names=["a", "b", "c"], steps=[{"loss": {}}]),
        ),
        ("classification", classified(0, 0, 1, 0, adapted_name=None)),
    ],
)
def test_a_record_of_other_kinds_of_values_is_told(write_run, told, task, record):
    folder = write_run({"json:x" if task == "captioning" else "folder:x": [record]}, task=task)
    assert "holds records that this version of rlcf cannot read (sample 0: TypeError" in told(folder)


def test_numbers_that_are_not_finite_are_left_out(write_run, report):
    nan = float("nan")
    step = {"loss": nan, "views": [0], "answers": [[0, 1]], "rewards": [[nan, 0.5]], "advantages": [[None, nan]]}
    records = [classified(i, 0, 1, 0, steps=[step], zero_shot_confidence=nan, seconds=nan) for i in range(2)]
    assert not re.search(r"[,\[]NaN|\bnan\b", report(write_run({"folder:x": records})).page)


def test_control_characters_of_scores_and_settings_are_shown(write_run, report):
    folder = write_run({"json:x": [captioned(i, "a", "b", (0.1, 0.2)) for i in range(2)]}, task="captioning")
    scores = json.dumps({f"{i}.png": {"\x1b[2J<b>": 0.5} for i in range(2)})
    for name in ("each-scores.json", "each-scores-zero-shot.json"):
        (folder / "json-x" / name).write_text(scores)
    page = report(folder).page
    assert "\x1b" not in page and "<b>" not in page and "\\x1b[2J&lt;b&gt;" in page


def test_a_caption_without_a_score_is_shown_without_it(write_run, report):
    folder = write_run({"json:x": [captioned(i, "a", "b", (0.1, 0.2)) for i in range(2)]}, task="captioning")
    for name in ("each-scores.json", "each-scores-zero-shot.json"):
        (folder / "json-x" / name).write_text('{"0.png": {"CIDEr": 0.5}}')
    assert "CIDEr" in report(folder).page


@pytest.mark.parametrize("name", ["results.json", "folder/records.jsonl", "folder/more"])
def test_a_pipe_in_a_run_folder_is_told_and_not_waited_for(write_run, told, name):
    folder = write_run({"folder": RECORDS})
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert told(folder) == f"{folder / name} is a pipe, a device or a socket and no file of a run; remove it"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pictures", "-1"], "--pictures: -1 must be at least 0"),
        (["--images", "nowhere"], "--images: no folder nowhere"),
        (["--no-page"], "--no-page leaves nothing to write; give --csv, --markdown or --latex"),
        (["--output", ""], "argument --output: is empty; give a path; --help lists the flags"),
        (["--nothing"], "unrecognized arguments: --nothing; --help lists the flags"),
    ],
)
def test_wrong_flags_are_told(write_run, told, words, said):
    assert told(write_run({"folder": RECORDS}), *words) == said


def test_a_tilde_is_the_home_folder_and_a_folder_gets_the_page(write_run, monkeypatch, tmp_path):
    run = write_run({"folder": RECORDS})
    monkeypatch.setenv("HOME", str(tmp_path))
    main([f"~/{run.name}", "--output", "~", "--csv", "~/new/table.csv"])
    assert (tmp_path / "report.html").is_file() and (tmp_path / "new" / "table.csv").is_file()
