"""The study: its runs, its intervals over worlds and images, and its tables."""

import dataclasses
import importlib
import pickle
import shutil

import numpy as np
import pytest

from demo.study import costs
from demo.study import main as study
from demo.study.costs import passes_of
from demo.study.methods import CAPTIONING, CHOSEN, CLASSIFICATION, RETRIEVAL, TASKS, flags_of
from demo.study.report import draw_report, hierarchical_interval, report
from demo.world import VALIDATION_SEED
from rlcf.errors import UserError
from rlcf.run.config import parse_config
from tests.tools import ROOT

SHIPPED = ("demo-student", "demo-reward")


def test_a_gain_that_all_worlds_share_has_a_narrow_interval():
    same = [np.array([1.0] * 30 + [0.0] * 70)] * 3
    mean, low, high = hierarchical_interval(same)
    assert mean == pytest.approx(30.0) and 20 < low < 30 < high < 40


def test_worlds_see_the_same_images_so_that_equal_worlds_have_the_interval_of_one():
    values = np.array([1.0] * 30 + [0.0] * 70)
    widths = [high - low for _, low, high in (hierarchical_interval([values] * worlds) for worlds in (1, 3))]
    assert widths[0] == pytest.approx(widths[1], abs=0.5) and 16 < widths[0] < 20


def test_worlds_that_disagree_widen_the_interval():
    apart = [np.full(1000, value) for value in (0.0, 0.3, 0.6)]
    mean, low, high = hierarchical_interval(apart)
    assert mean == pytest.approx(30.0) and low == pytest.approx(0.0) and high == pytest.approx(60.0)


def test_a_pair_that_was_not_trained_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no model .*student-1; train it: python -m demo.study train --pairs 1"):
        study.models_of(tmp_path, 1)


def test_a_report_without_runs_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no outcomes; make them first: python -m demo.study run"):
        report(tmp_path, CLASSIFICATION)


def test_the_report_is_of_the_tasks_that_have_outcomes(monkeypatch, capsys):
    monkeypatch.setattr("demo.study.main.draw_report", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["study", "report", "--outcomes", str(ROOT / "docs" / "study")])
    study.main()
    assert "classification, seed 2002" in (printed := capsys.readouterr().out) and "choices, seed 1001" in printed


def test_without_a_step_all_are_done_in_turn(monkeypatch):
    done = []
    monkeypatch.setattr(study, "do_step", done.append)
    monkeypatch.setattr("sys.argv", ["study"])
    study.main()
    assert done == [["train"], ["run"], ["cost"], ["report"]]


@pytest.mark.parametrize("task", [CLASSIFICATION, RETRIEVAL], ids=["classification", "retrieval"])
def test_pictures_that_were_written_in_part_are_written_again(task, tmp_path):
    def stopped(folder, style, *_):
        task.write(folder, style, 1, 8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.write_pictures(tmp_path, dataclasses.replace(task, size=1, write=stopped), 7)
    for _ in range(2):
        study.write_pictures(tmp_path, dataclasses.replace(task, size=1, styles=("clean",)), 7)
    task.write(tmp_path / "expected", "clean", 1, 7)
    names = [
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.*") if file.is_file()}
        for folder in (tmp_path / "pictures", tmp_path / "expected")
    ]
    assert names[0] == names[1] and len(names[0]) > 1


def test_a_flag_of_another_step_is_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["study", "report", "--pairs", "1"])
    with pytest.raises(UserError, match="--pairs"):
        study.main()


def test_a_run_that_a_task_does_not_have_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["study", "run", "--output", str(tmp_path), "--methods", "zeroshot", "nothing"])
    with pytest.raises(UserError, match="--methods nothing is no run of classification; there are zeroshot, views"):
        study.main()


@pytest.mark.parametrize("name", TASKS)
def test_a_task_can_be_handed_to_another_process(name):
    assert pickle.loads(pickle.dumps(TASKS[name])) == TASKS[name]


@pytest.mark.parametrize("task", [*TASKS.values(), *CHOSEN.values()], ids=[*TASKS, *CHOSEN])
def test_every_method_of_the_study_is_a_command_that_parses(task):
    kind = next(
        value
        for value in vars(importlib.import_module(f"{task.script}.config")).values()
        if isinstance(value, type) and value.__name__.endswith("Config") and value.__module__.startswith(task.script)
    )
    for run in task.methods:
        parse_config(kind, flags_of(task, run, SHIPPED), "", "")
    assert set(task.baselines) <= task.methods.keys()


def test_settings_are_chosen_on_other_pictures_and_the_study_has_the_best_of_each_method():
    choices = CHOSEN["choices"]
    assert choices.seed == VALIDATION_SEED != CLASSIFICATION.seed
    chosen = {"kd": "kd-2e-4", "rlcf": "rlcf-1e-4", "rlcf-prompt": "rlcf-2e-2"}
    chosen |= {"anchored": "anchored-2e-4", "anchored-prompt": "anchored-2e-2"}
    chosen |= {name: name for name in ("anchored-mean", "anchored-product", "anchored-prompt-mean")}
    for name, choice in chosen.items():
        assert CLASSIFICATION.methods[name][1] == choices.methods[choice][1]


def test_runs_on_other_pictures_lie_in_a_folder_of_their_own(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(study, "run_task", lambda output, place, kept, *_: places.append((place, kept)))
    monkeypatch.setattr(study, "write_pictures", lambda *_: None)
    for seed in ("1001", "2002"):
        monkeypatch.setattr("sys.argv", ["study", "run", "--output", str(tmp_path), "--seed", seed])
        study.main()
    assert len(set(places)) == 2 * len(TASKS)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Runs some methods of a task on a few pictures with the shipped pair; returns the outcomes and the small task."""

    def run(task, names, size, styles=("clean", "blur")):
        few = {name: (title, f"{flags} --limit 12") for name, (title, flags) in task.methods.items()}
        task = dataclasses.replace(task, styles=styles, size=size, pairs=(0,), methods=few)
        place, kept = tmp_path / task.script, tmp_path / "outcomes" / f"{task.script}-7"
        study.write_pictures(place, task, 7)
        for name in names:
            printed = study.run_method(place, kept, task, 0, SHIPPED, name)
            assert f"pair 0, {name}: {task.lists}:blur" in printed
            shutil.rmtree(place / "pair-0" / name)
            assert study.run_method(place, kept, task, 0, SHIPPED, name) == ""  # its outcome is there
        monkeypatch.setattr(costs, "ROUNDS", 1)
        study.cost_task(place, kept, task, names)
        return kept, task

    return run


def rows_of(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]


def test_the_pages_tables_are_those_that_the_kept_outcomes_give():
    page = (ROOT / "docs" / "study.md").read_text()
    for name, task in {**TASKS, **CHOSEN}.items():
        place = ROOT / "docs" / "study" / f"{name}-{task.seed}"
        if place.is_dir():
            tables = [block.strip() for block in report(place, task).split("\n\n") if block.startswith("|")]
            assert len(tables) >= 3 and all(table in page for table in tables[: 1 if name in CHOSEN else None])


@pytest.mark.slow
def test_the_study_of_classification_runs_and_reports(small):
    place, task = small(CLASSIFICATION, ["zeroshot", "reward", "product", "zero-reward"], size=1)
    rows = rows_of(report(place, task))
    assert draw_report(place, task).stat().st_size > 10_000
    told = {row[0] for row in rows}
    assert {"zero-shot", "reward model alone", "product of both models"} <= told and "TPT, prompt" not in told
    passes = {row[0]: row[3:] for row in rows[-4:]}
    assert passes["zero-shot"] == ["1", "0", "0"]
    assert passes["reward model alone"] == ["1", "0", "1"]
    assert passes["ZERO, the reward votes"] == ["12", "0", "6"]


@pytest.mark.slow
def test_the_study_of_retrieval_counts_the_texts_of_an_image_together(small):
    text = report(*small(RETRIEVAL, ["zeroshot", "product"], size=4))
    assert text.count("n 4 a style and pair") == 2 and "Text to image" in text


@pytest.mark.slow
def test_the_study_of_captioning_tells_the_things_named_and_cider(small):
    rows = rows_of(report(*small(CAPTIONING, ["zeroshot", "rerank"], size=4)))
    assert rows[0] == ["things named %", "clean", "blur", "shifts", "CIDEr on shifts", "ms"]
    assert {"zero-shot", "reward reranks the 10 captions"} <= {row[0] for row in rows}


def test_passes_are_counted_with_their_backward_ones(tmp_path):
    task = dataclasses.replace(CLASSIFICATION, styles=("clean", "blur"))
    for style in task.styles:
        task.write(tmp_path, style, 1, 7)
    passes = passes_of(task, tmp_path, flags_of(task, "rlcf", SHIPPED))
    # The centre crop before; the twelve views that are ranked; three steps on six views; the centre crop after.
    assert passes["student_images"] - passes["student_images_back"] in (13, 14)
    assert passes["student_images_back"] == 18 and passes["reward_images"] == 6 and passes["student_texts"] == 0
    prompt = passes_of(task, tmp_path, flags_of(task, "rlcf-prompt", SHIPPED))
    assert prompt["student_images"] == 12 and prompt["student_images_back"] == 0
    # The start's features and graph are the same for all images: the texts go forward after each of the three steps.
    assert prompt["student_texts"] == prompt["student_texts_back"] == 300
