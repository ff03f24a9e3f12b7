"""Runs that were stopped, damaged, or begun with other contents: they end as an undisturbed one, or are refused."""

import shutil
from pathlib import Path

import pytest
import torch

from classification.main import main
from rlcf.clip.loading import load_clip
from rlcf.run import setup
from tests.damage import SPECIAL, survive
from tests.tools import OPENAI_TEXT, Results, build_clip, held, in_processes, mistake, slowed, stop_after_records

from .conftest import TINY_RUN

GROUPS = ["--tune", "norm", "--lr", "1e-2", "--images-at-once", "3", "--limit", "8", "--save-logits"]


@pytest.fixture
def classify(emoji, tmp_path, monkeypatch, load_once, checkpoint):
    """Runs the entry script's main on blurred emoji with a tiny CLIP that is loaded once; flags win over that."""
    loaded = load_once(str(checkpoint("vit")))
    monkeypatch.setattr(setup, "load_clip", lambda *_: loaded)
    monkeypatch.setattr("rlcf.run.run.commit", lambda: None)

    def run(*flags, output="run"):
        models = ["--student", checkpoint("vit"), "--reward", checkpoint("vit"), "--output", tmp_path / output]
        main([*map(str, ["--data", emoji, "--datasets", "folder:blur", *models]), *TINY_RUN, *map(str, flags)])
        return Results(tmp_path / output)

    return run


@pytest.fixture
def told(classify, capsys):
    """The one line that a mistake ends with."""

    def ask(*flags):
        capsys.readouterr()
        return mistake(lambda: classify(*flags), capsys)

    return ask


# ---- stopped inside a group, with any number of processes ----


def left(results):
    """All that must be the same bit for bit."""
    logits = {name: matrix.numpy().tobytes() for name, matrix in results.logits().items()}
    timed = {"seconds_per_sample", "peak_memory_mb", "seconds_saved"}
    metrics = {k: v for k, v in results.metrics["folder:blur"].items() if k not in timed}
    return results.records(), logits, metrics


def test_a_group_that_was_stopped_is_done_whole_again_with_the_same_bits(classify, monkeypatch):
    whole = left(classify(*GROUPS, output="whole"))
    for stop in (1, 2, 3, 4, 7):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after_records(stop, patch)
            classify(*GROUPS, output=str(stop))
        assert left(classify(*GROUPS, output=str(stop))) == whole


def test_stopped_runs_go_on_with_any_number_of_processes_and_the_same_bits(classify, monkeypatch):
    whole = left(classify(*GROUPS, output="whole"))
    for count, stop, then in ((2, 2, 1), (3, 1, 2), (1, 4, 3)):
        output = f"{count}-{then}"
        with monkeypatch.context() as patch:
            stop_after_records(stop, patch)
            first, *others = in_processes(count, lambda out=output: classify(*GROUPS, output=out))
        assert first == 130 and {*others} <= {130, 2}  # 2 where it asked the first for more when that had ended
        assert in_processes(then, lambda out=output: classify(*GROUPS, output=out)) == [0] * then
        assert left(classify(*GROUPS, output=output)) == whole


@pytest.mark.parametrize(("count", "slow", "at_once"), [(2, 1, 1), (2, 0, 3), (3, 2, 2)])
def test_a_slow_process_does_not_hold_the_others_and_records_are_those_of_one(classify, tmp_path, count, slow, at_once):
    flags = [*GROUPS, "--images-at-once", at_once]
    whole = left(classify(*flags, output="whole"))
    run = slowed(lambda: classify(*flags, output="several"), slow, count, tmp_path)
    assert in_processes(count, run) == [0] * count
    done = [int((tmp_path / str(rank)).read_text()) for rank in range(count)]
    assert sum(done) == 8 and done[slow] <= at_once  # it got one portion, the others the rest
    assert left(classify(*flags, output="several")) == whole


def test_an_image_that_cannot_be_read_keeps_its_place_in_its_group(classify, emoji, tmp_path, monkeypatch):
    shutil.copytree(emoji, tmp_path / "data")
    bad = sorted((tmp_path / "data" / "blur").rglob("*.png"))[3]
    bad.write_bytes(b"torn")
    flags = [*GROUPS, "--data", tmp_path / "data", "--skip-bad-images"]
    whole = left(classify(*flags, output="whole"))
    assert [record["status"] for record in whole[0]].count("unreadable") == 1
    assert in_processes(2, lambda: classify(*flags, output="two")) == [0, 0]
    assert left(classify(*flags, output="two")) == whole
    for stop in (1, 2, 4):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after_records(stop, patch)
            classify(*flags, output=str(stop))
        assert left(classify(*flags, output=str(stop))) == whole


# ---- a trial that grows ----


GROWING = {
    "groups": ["--tune", "norm", "--lr", "1e-2", "--images-at-once", "3", "--save-logits"],
    "momentum": ["--tune", "norm", "--lr", "1e-2", "--momentum", "--momentum-decay", ".5", "--momentum-every", "2"],
    "tda": ["--method", "tda"],
}


@pytest.mark.parametrize("what", GROWING)
def test_a_higher_limit_goes_on_to_the_records_of_a_fresh_run(classify, what, tmp_path):
    flags = [*GROWING[what], "--save-logits"]
    whole = left(classify(*flags, output="whole"))
    middle = left(classify(*flags, "--limit", 7, output="middle"))
    first = classify(*flags, "--limit", 2).records(seconds=True)
    assert left(classify(*flags, "--limit", 7)) == middle
    assert Results(tmp_path / "run").metrics["folder:blur"]["n"] == 7
    kept = {record["index"]: record for record in Results(tmp_path / "run").records(seconds=True)}
    again = [record for record in first if kept[record["index"]] != record]  # by their seconds
    assert len(again) == (2 if what == "groups" else 0)  # a group that has grown is done whole again
    assert left(classify(*flags)) == whole
    assert not [file for file in (tmp_path / "run").rglob("*") if "part" in file.name or "momentum" in file.name]


def test_a_trial_grows_with_any_number_of_processes(classify):
    flags = GROWING["groups"]
    whole = left(classify(*flags, "--limit", 8, output="whole"))
    for count, then in ((2, 1), (1, 2)):
        output = f"{count}-{then}"
        assert in_processes(count, lambda out=output: classify(*flags, "--limit", 5, output=out)) == [0] * count
        assert in_processes(then, lambda out=output: classify(*flags, "--limit", 8, output=out)) == [0] * then
        assert left(classify(*flags, "--limit", 8, output=output)) == whole


def test_a_stop_while_a_finished_trial_is_taken_up_again_loses_nothing(classify, monkeypatch):
    flags = GROWING["momentum"]
    whole = classify(*flags, "--limit", 6, output="whole").records()
    classify(*flags, "--limit", 3)
    for name in ("unlink", "unlink", "open"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            original, count = getattr(Path, name), []

            def stopping(file, *given, original=original, count=count, **settings):
                if file.name.startswith("records"):
                    count.append(file)
                    if len(count) > 1:
                        raise KeyboardInterrupt
                return original(file, *given, **settings)

            patch.setattr(Path, name, stopping)
            classify(*flags, "--limit", 6)
    assert classify(*flags, "--limit", 6).records() == whole


def test_a_lower_limit_is_refused_in_a_sentence_and_changes_nothing(classify, told):
    flags = ["--method", "zeroshot"]
    records = classify(*flags, "--limit", 4).records()
    sentence = told(*flags, "--limit", 2)
    assert "holds 4 samples and --limit 2 leaves out some of them; give a higher --limit" in sentence
    assert classify(*flags, "--limit", 4).records() == records


# ---- one folder, one run ----


def test_a_folder_in_use_is_refused_and_nothing_in_it_changes(classify, told, tmp_path):
    classify("--method", "zeroshot", "--limit", 1)
    with held(tmp_path / "run"):
        before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
        assert "is in use by process" in told("--method", "zeroshot", "--limit", 1)
        assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    classify("--method", "zeroshot", "--limit", 1)


# ---- other contents ----


@pytest.fixture
def own(classify, emoji, tmp_path, checkpoint, monkeypatch):
    """A stopped run on files of the user's own: data, a names file, weights of student and reward, a CoOp context."""
    shutil.copytree(emoji / "blur", tmp_path / "data")
    (tmp_path / "names.txt").write_text("an apple\na car\na cat\na dog\na key\nan owl\n")
    for name in ("student", "reward"):
        shutil.copy(checkpoint("vit"), tmp_path / f"{name}.pt")
    torch.save({"state_dict": {"ctx": torch.ones(4, 64)}}, tmp_path / "coop.pt")
    flags = ["--tune", "prompt", "--datasets", "folder", "--data", tmp_path / "data", "--limit", 3]
    flags += ["--classnames", tmp_path / "names.txt", "--context", tmp_path / "coop.pt"]
    flags += ["--student", tmp_path / "student.pt", "--reward", tmp_path / "reward.pt"]
    monkeypatch.setattr(setup, "load_clip", load_clip)  # afresh each time
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after_records(2, patch)
        classify(*flags)
    return flags


def replaced(file, seed):
    torch.save(build_clip(text=OPENAI_TEXT, seed=seed, quick_gelu=True).state_dict(), file)


CHANGES = {
    "class names": lambda at: (at / "names.txt").write_text("an apple\na cat\na car\na dog\na key\nan owl\n"),
    "weights of the student": lambda at: replaced(at / "student.pt", 7),
    "weights of reward model 1": lambda at: replaced(at / "reward.pt", 8),
    "context vectors": lambda at: torch.save({"state_dict": {"ctx": torch.zeros(4, 64)}}, at / "coop.pt"),
    "samples": lambda at: next((at / "data" / "cat").glob("*.png")).rename(at / "data" / "dog" / "zz.png"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_run_does_not_go_on_with_other_contents_and_says_which(own, told, tmp_path, changed):
    CHANGES[changed](tmp_path)
    folder = tmp_path / "run" / "folder"
    assert told(*own) == f"{folder} was begun with other {changed} than there are now; choose another --output"


def test_a_run_goes_on_with_its_files_named_in_another_way(own, classify, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = [f"./{word.relative_to(tmp_path)}" if hasattr(word, "relative_to") else word for word in own]
    assert len(classify(*flags).records("folder")) == 3


def test_datasets_whose_names_are_alike_have_folders_of_their_own(classify, emoji, tmp_path):
    for name in ("a b", "a-b"):
        shutil.copytree(emoji / "blur", tmp_path / "data" / name)
    flags = ["--data", tmp_path / "data", "--method", "zeroshot", "--limit", 2]
    results = classify(*flags, "--datasets", "folder:a b", "folder:a-b")
    assert list(results.metrics) == ["folder:a b", "folder:a-b"]
    assert {file.parent.name for file in results.folder.glob("*/records.jsonl")} == {"folder-a%20b", "folder-a-b"}


# ---- every file of the folder, damaged in every way ----

MOMENTUM = ["--momentum", "--momentum-every", "2", "--momentum-decay", "0.5"]


@pytest.mark.parametrize("stop", [3, None], ids=["stopped", "finished"])
def test_every_damage_of_a_run_folder_is_mended_or_told(classify, tmp_path, monkeypatch, stop):
    flags = ["--tune", "norm", "--limit", 4, "--save-logits", *MOMENTUM]
    for output, lr in (("begun", "1e-2"), ("foreign", "2e-2")):
        with monkeypatch.context() as patch:
            stop_after_records(stop, patch)
            try:
                classify(*flags, "--lr", lr, output=output)
            except KeyboardInterrupt:
                assert stop

    def again(folder):
        return classify(*flags, "--lr", "1e-2", output=folder.name)

    also = [("folder-blur/records.part0.jsonl", "a line twice"), ("folder-blur/records.jsonl", "another answer")]
    outcomes = survive(tmp_path / "begun", tmp_path / "foreign", again, left, tmp_path, 4, also)
    files = {file for file, _ in outcomes}
    assert {".lock", "config.yaml", "log.txt", "folder-blur/identity.json"} < files
    assert (
        "config.yaml is a pipe, a device or a socket and no file of a run; remove it"
        in outcomes["config.yaml", "a pipe"]
    )
    told = {(file, damage) for file, damage in outcomes if damage in SPECIAL and damage != "missing"}
    mended = {file for file in files if all(outcomes[f, d] == "same" for f, d in outcomes.keys() - told if f == file)}
    assert {".lock", "config.yaml", "log.txt"} <= mended
    if stop:
        assert outcomes["folder-blur/momentum.safetensors", "missing"] == "same"
        assert "momentum.safetensors is damaged; delete it" in outcomes["folder-blur/momentum.safetensors", "empty"]
        assert "momentum.safetensors has seen 2 samples" in outcomes["folder-blur/momentum.safetensors", "foreign"]
        assert "has seen 2 samples" in outcomes["folder-blur/records.part0.jsonl", "missing"]
        told = outcomes["folder-blur/records.part0.jsonl", "a line twice"]
        assert told.endswith("records.part0.jsonl repeats a sample in line 4; delete its folder to start it afresh")
    else:
        assert {"results.json", "folder-blur/classnames.txt"} <= mended
        assert "logits.safetensors is missing, damaged" in outcomes["folder-blur/logits.safetensors", "missing"]
        told = outcomes["folder-blur/records.jsonl", "missing"]  # a trial may grow: its memory is kept
        assert "has seen 4 samples, which are not those of the 0 records beside it; delete it to start" in told
        told = outcomes["folder-blur/records.jsonl", "another answer"]
        assert told.endswith("records.jsonl is damaged in line 1; delete its folder to start it afresh")
