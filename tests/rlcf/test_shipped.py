import pytest

from rlcf import shipped
from rlcf.shipped import ASSETS, shipped_folder, shipped_names


@pytest.fixture
def assets(tmp_path, monkeypatch):
    """A folder of models: "small" and "large" with a config, "words" without."""
    for name in ("small", "large", "words"):
        (tmp_path / "assets" / name).mkdir(parents=True)
    for name in ("small", "large"):
        (tmp_path / "assets" / name / "config.json").write_text("{}")
    (tmp_path / "assets" / "file").write_text("")
    (tmp_path / "outside").mkdir()
    monkeypatch.setattr(shipped, "ASSETS", tmp_path / "assets")
    return tmp_path / "assets"


def test_a_shipped_model_is_found_by_its_name(assets):
    assert shipped_folder("small") == assets / "small"


@pytest.mark.parametrize("name", ["", ".", "..", "medium", "file", "../outside", "small/", "small/.."])
def test_other_names_are_no_shipped_models(assets, name):
    assert shipped_folder(name) is None


def test_an_absolute_path_is_no_shipped_model(assets):
    assert shipped_folder(str(assets.parent / "outside")) is None


def test_models_are_listed_by_a_file_that_they_hold(assets):
    assert shipped_names("config.json") == ["large", "small"] and shipped_names("no.json") == []


def test_the_demo_models_come_along():
    assert ASSETS.is_dir() and {"demo-student", "demo-reward"} <= set(shipped_names("open_clip_config.json"))
