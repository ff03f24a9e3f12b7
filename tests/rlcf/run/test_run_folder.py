"""The run folder: its config, its log and its results."""

import dataclasses
import json
import logging
import subprocess
import sys

import pytest
import torch

import rlcf
from rlcf.errors import UserError
from rlcf.run import folder as runs
from rlcf.run.config import read_preset
from rlcf.run.folder import commit, versions
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from tests.fuzz.files import Special, put

RECORD = {"index": 0, "id": "a.png", "status": "ok"}


# ---- the folder ----


@pytest.mark.parametrize("name", ["config.yaml", "results.json", "d/records.part0.jsonl", ".lock"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "folder"])
def test_a_pipe_a_device_and_a_folder_in_a_run_folder_are_told_and_not_waited_for(folder, begin, name, kind):
    records = begin()
    records.add(RECORD)
    (folder / name).unlink(missing_ok=True)
    put(folder / name, Special(kind))
    try:
        begin().finish()
        Run(Config(output=str(folder)), Shard()).report("d", {"n": 1})
    except (UserError, IsADirectoryError) as error:
        assert kind == "folder" or str(error) == (
            f"{folder / name} is a pipe, a device or a socket and no file of a run; remove it"
        )
    else:
        raise AssertionError("it was taken for a file")


@pytest.mark.parametrize("name", ["log.txt", ".lock", "d/records.part0.jsonl", "d/records.part0.sums"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_place_of_a_file_that_grows_is_told_and_what_it_leads_to_stays(folder, begin, tmp_path, name, there):
    begin().add(RECORD)
    (folder / name).unlink()
    if there:
        (tmp_path / "mine").write_text("precious")
    (folder / name).symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=f"{name} is a link and no file of a run; remove it"):
        begin()
    assert [file.read_text() for file in tmp_path.glob("mine")] == ["precious"] * there


@pytest.mark.parametrize("edit", ['"n": 7', '"n": 1, "m": 0'])
def test_results_that_were_edited_are_written_anew(folder, begin, edit):
    begin()
    run, file = Run(Config(output=str(folder)), Shard()), folder / "results.json"
    run.report("a", {"n": 1})
    run.report("b", {"n": 2})
    assert json.loads(file.read_text())["datasets"] == {"a": {"n": 1}, "b": {"n": 2}}
    file.write_text(file.read_text().replace('"n": 1', edit))
    run.report("b", {"n": 2})
    assert json.loads(file.read_text())["datasets"] == {"b": {"n": 2}}


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
        ("precision", "auto", "bf16"),
    ],
)
def test_a_changed_config_refuses_to_mix_and_names_the_key(folder, begin, key, before, now):
    begin(**{key: before}).add(RECORD)
    with pytest.raises(UserError) as error:
        begin(**{key: now})
    text = f"{folder} holds a run with another config: {key} ({before} -> {now}); choose another --output"
    assert str(error.value) == text
    assert read_preset(Config, str(folder / "config.yaml"))[key] == before


def test_all_changed_keys_are_named(begin):
    begin().add(RECORD)
    with pytest.raises(UserError, match=r"lr \(1e-05 -> 0.1\), steps \(3 -> 9\);"):
        begin(steps=9, lr=0.1)


@pytest.mark.parametrize("changed", [{"workers": 7}, {"skip_bad_images": True}, {"limit": 3}])
def test_settings_that_no_record_depends_on_may_change(begin, changed):
    begin().add(RECORD)
    assert begin(**changed).count == 1


def test_a_run_without_records_takes_another_config(folder, begin):
    begin(steps=3)
    begin(steps=4)
    assert read_preset(Config, str(folder / "config.yaml"))["steps"] == 4


def test_a_run_folder_may_be_moved(folder, begin, tmp_path):
    begin().add(RECORD)
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
    with pytest.raises(UserError, match=r"^cannot write .*run.* \(Is a directory\); choose another"):
        Run(Config(output=str(folder)), Shard())


# ---- results ----


def test_results_hold_every_dataset_the_command_the_seed_and_the_versions(folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "--seed", "5"])
    for name, n in (("A", 1), ("R", 2), ("A", 3)):
        Run(Config(output=str(folder), seed=5), Shard()).report(name, {"n": n})
    results = json.loads((folder / "results.json").read_text())
    assert results["datasets"] == {"A": {"n": 3}, "R": {"n": 2}}
    assert (results["command"], results["seed"]) == ("main.py --seed 5", 5)
    assert results["versions"] == versions() and results["commit"] == commit()
    assert 'R: {"n": 2}' in (folder / "log.txt").read_text()


def test_versions_are_those_of_python_the_project_and_its_packages():
    found = versions()
    assert list(found) == ["python", "rlcf", "torch", "torchvision", "open_clip_torch", "transformers"]
    assert found["rlcf"] == rlcf.__version__ and found["torch"] == torch.__version__.split("+")[0]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git repository that the project runs from, with one commit."""
    file = tmp_path / "rlcf" / "run" / "records.py"
    file.parent.mkdir(parents=True)
    file.write_text("")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(runs, "__file__", str(file))
    return file


def test_the_commit_is_that_of_the_checkout_with_a_plus_for_changed_files(checkout):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout.parent, capture_output=True, text=True, check=True)
    assert commit() == head.stdout.strip()
    (checkout.parent / "new.py").write_text("")  # not tracked
    assert commit() == head.stdout.strip()
    checkout.write_text("changed")
    assert commit() == head.stdout.strip() + "+"


def test_an_installed_package_has_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "__file__", str(tmp_path / "rlcf" / "run" / "records.py"))
    assert commit() is None


def test_a_machine_without_git_has_no_commit(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None
