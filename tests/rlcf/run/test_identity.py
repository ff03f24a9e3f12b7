"""What a run was begun with: other settings or contents are refused, another way of writing a path is not."""

import json
from dataclasses import dataclass

import pytest

from rlcf.errors import UserError
from rlcf.run.config import model_option
from rlcf.run.identity import IDENTITY_FILE, check_settings, keep_identity, read_identity
from rlcf.run.settings import Config


@dataclass
class TaskConfig(Config):
    reward: list[str] = model_option(["r"], "r", path=True)
    checkpoint: str | None = model_option(None, "c", path=True)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder with folders "data" and "other"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("data", "other", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("data")
    return tmp_path


def begin(place, **settings):
    keep_identity(place / "run", TaskConfig(**settings), {"texts": "1"}, begun=False)


WAYS = ["data", "data/", "./data", "other/../data", "{place}/data", "~/data", "link"]


@pytest.mark.parametrize("first", WAYS)
def test_a_path_written_in_another_way_is_the_same(place, first):
    first, *others = [way.format(place=place) for way in (first, *WAYS)]
    begin(place, data=first, reward=["x", first], checkpoint=first)
    for way in others:
        check_settings(place / "run", TaskConfig(data=way, reward=["x", way], checkpoint=way))


def test_the_same_words_in_another_working_folder_are_another_path(place, monkeypatch):
    begin(place, data="data")
    (place / "other" / "data").mkdir()
    monkeypatch.chdir(place / "other")
    with pytest.raises(UserError, match=r"another config: data \(.*/data -> .*/other/data\); choose another --output"):
        check_settings(place / "run", TaskConfig(data="data"))
    check_settings(place / "run", TaskConfig(data="../data"))


def test_a_path_to_something_else_is_refused(place):
    begin(place, data="data", reward=["x", "data"])
    with pytest.raises(UserError, match=r"another config: data \(.*data -> .*other\), reward"):
        check_settings(place / "run", TaskConfig(data="other", reward=["x", "other"]))
    with pytest.raises(UserError, match="another config: reward"):
        check_settings(place / "run", TaskConfig(data="data", reward=["x", "data", "data"]))


def test_a_name_that_is_no_path_stays_a_name(place):
    begin(place, reward=["demo-reward", "hf-hub:a/b"])
    held = read_identity(place / "run").settings
    assert held["reward"] == ["demo-reward", "hf-hub:a/b"] and held["checkpoint"] is None
    assert "workers" not in held and "output" not in held


@pytest.mark.parametrize(
    ("now", "told"),
    [
        ({"texts": "2", "images": "1"}, "other texts than"),
        ({"texts": "2", "images": "2"}, "other texts, images than"),
        ({"texts": "1"}, "other images than"),
        ({"texts": "1", "images": "1", "names": "1"}, "other names than"),
    ],
)
def test_changed_contents_are_named(place, now, told):
    config = TaskConfig()
    keep_identity(place / "run", config, {"texts": "1", "images": "1"}, begun=False)
    with pytest.raises(UserError) as error:
        keep_identity(place / "run", config, now, begun=True)
    assert str(error.value) == f"{place / 'run'} was begun with {told} there are now; choose another --output"
    keep_identity(place / "run", config, now, begun=False)  # nothing was begun with the others
    assert read_identity(place / "run").contents == now


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"null", b"[]", b"[" * 100_000, b"\xff", b'{"settings": 3, "contents": {}}', b"9" * 5000, b"{"],
)
def test_a_damaged_identity_is_told(place, content):
    begin(place)
    (place / "run" / IDENTITY_FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"run/identity.json is damaged, .*; delete .*run to start"):
        check_settings(place / "run", TaskConfig())


def test_a_missing_identity_is_told(place):
    with pytest.raises(UserError, match=r"run/identity.json is missing, and nothing else tells"):
        keep_identity(place / "run", TaskConfig(), {}, begun=True)


def test_the_key_is_that_of_settings_and_contents(place):
    keys = set()
    for settings, contents in (({}, {"a": "1"}), ({"lr": 2.0}, {"a": "1"}), ({}, {"a": "2"}), ({}, {"b": "1"})):
        keep_identity(place / "run", TaskConfig(**settings), contents, begun=False)
        keys.add(read_identity(place / "run").key)
        file = place / "run" / IDENTITY_FILE
        file.write_text(json.dumps(json.loads(file.read_text())))  # laid out in another way
        assert read_identity(place / "run").key in keys
    assert len(keys) == 4 and {len(key) for key in keys} == {32}
