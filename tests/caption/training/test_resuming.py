"""Extractions and trainings that were stopped, damaged, started twice, or begun with other contents."""

import json
import shutil

import pytest
import torch

from caption import extract_features, train
from caption.training import extract as extraction
from caption.training import run as training_run
from caption.training import training
from caption.training.features import Features, read_features, write_features
from rlcf.clip.weights import read_weights
from tests.damage import SPECIAL, survive
from tests.tools import held, mistake

CAPTIONS = ["a dog above a key", "a cat below a car", "a pig above a key", "a dog below a car"]


@pytest.fixture
def extract(data, monkeypatch, load_once):
    """Runs caption/extract_features.py into a folder; returns the folder."""
    loaded = load_once("demo-student")
    monkeypatch.setattr(extraction, "load_clip", lambda *_: loaded)

    def run(folder, *flags):
        where = ["--data", str(data), "--captions", "clean.json", "--output", str(folder), "--chunk", "3"]
        extract_features.main([*where, "--student", "demo-student", "--workers", "0", "--device", "cpu", *flags])
        return folder

    return run


@pytest.fixture
def fit(tmp_path, lm_folder, monkeypatch):
    """Runs caption/train.py on a few features into a folder; returns the folder."""
    monkeypatch.setattr(training, "write_curve", lambda folder, history: None)
    write(tmp_path / "features")
    load = training_run.load_language_model(str(lm_folder("opt")), "cpu", "fp32")
    monkeypatch.setattr(training_run, "load_language_model", lambda *_: load)

    def run(folder, *flags):
        tiny = ["--prefix-length", "3", "--clip-length", "2", "--layers", "1", "--heads", "4", "--device", "cpu"]
        short = ["--epochs", "2", "--batch-size", "2", "--warmup", "1", "--lr", "1e-2"]
        where = ["--data", str(tmp_path / "features"), "--language-model", str(lm_folder("opt"))]
        train.main([*where, "--output", str(folder), *tiny, *short, *flags])
        return folder

    return run


def write(folder, seed=0):
    folder.mkdir(exist_ok=True)
    rows = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed))
    write_features(folder, Features(CAPTIONS, [0, 1, 2, 3], [0, 1, 2, 3], rows, rows.flip(0)))


def stopping(monkeypatch, owner, name, after=0):
    """Let Ctrl-C come at the call of `name` that follows `after` others."""
    original, calls = getattr(owner, name), []

    def stop(*given, **named):
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return original(*given, **named)

    monkeypatch.setattr(owner, name, stop)


def begin(run, folder, stop, *flags):
    """A run of the folder that is stopped, or that ends where `stop` is None."""
    with pytest.MonkeyPatch.context() as patch:
        if stop is None:
            run(folder, *flags)
            return
        stopping(patch, *stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, *flags)


def weights(folder):
    held = read_weights(folder / "ckpt-latest.pt")["state_dict"]  # a byte that holds nothing may be another
    return {name: tensor.numpy().tobytes() for name, tensor in held.items()}


def features(folder):
    found = read_features(str(folder))
    return found.captions, found.image_index, found.image.numpy().tobytes(), found.text.numpy().tobytes()


EXTRACTION = (extraction, "encode_images", 2)
TRAINING = (training.Training, "validate", 1)


@pytest.mark.parametrize("stop", [EXTRACTION, None], ids=["stopped", "finished"])
def test_every_damage_of_an_extraction_is_mended_or_told(extract, tmp_path, stop):
    begin(extract, tmp_path / "begun", stop)
    begin(extract, tmp_path / "foreign", stop, "--batch-size", "2")
    also = [("features.safetensors", "a bit at 99%")]
    outcomes = survive(tmp_path / "begun", tmp_path / "foreign", extract, features, tmp_path, 4, also)
    ways = {(file, way) for file, way in outcomes if file in ("image.f32", "image.sums") and way not in SPECIAL}
    parts = {outcomes[file, way] for file, way in ways}
    assert parts == ({"same"} if stop else set())
    if not stop:
        assert "extract the features again" in outcomes["features.safetensors", "a bit at 99%"]
        assert outcomes["captions.json", "missing"] == "same"


@pytest.mark.parametrize("stop", [TRAINING, None], ids=["stopped", "finished"])
def test_every_damage_of_a_training_is_mended_or_told(fit, tmp_path, stop):
    begin(fit, tmp_path / "begun", stop)
    begin(fit, tmp_path / "foreign", stop, "--seed", "3")
    outcomes = survive(tmp_path / "begun", tmp_path / "foreign", fit, weights, tmp_path, 4)
    assert outcomes["ckpt-latest.pt", "missing"] == outcomes["mapper.safetensors", "empty"] == "same"
    assert "ckpt-latest.pt is of another training" in outcomes["ckpt-latest.pt", "foreign"]
    assert "ckpt-latest.pt is damaged; delete it" in outcomes["ckpt-latest.pt", "a bit at 40%"]


CHANGES = {
    "a weight": lambda state: state["state_dict"]["clip_project.prefix_const"][0].mul_(1.5),
    "a moment of the optimiser": lambda state: state["optimizer"]["state"][0]["exp_avg"].view(-1)[:1].add_(1e-3),
    "a learning rate": lambda state: state["optimizer"]["param_groups"][0].update(lr=1.0),
    "the steps of the schedule": lambda state: state["scheduler"].update(last_epoch=1),
    "the epochs": lambda state: state.update(epoch=0),
    "a loss": lambda state: state["history"]["train"][0].__setitem__(1, 0.5),
    "no digest": lambda state: state.pop("digest"),
    "a list in itself": lambda state: state["history"]["train"].append(state["history"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_whose_numbers_are_not_as_they_were_written_is_told(change, fit, tmp_path, capsys):
    begin(fit, tmp_path / "run", TRAINING)
    file = tmp_path / "run" / "ckpt-latest.pt"
    state = torch.load(file, weights_only=True)
    CHANGES[change](state)
    torch.save(state, file)  # a whole archive, with checksums of its own
    capsys.readouterr()
    told = f"{file} is damaged; delete it to train afresh, or choose another --output"
    assert mistake(lambda: fit(tmp_path / "run"), capsys) == told


def test_folders_in_use_are_refused(extract, fit, tmp_path, capsys):
    for run in (extract, fit):
        with held(tmp_path / "run"):
            assert "is in use by process" in mistake(lambda run=run: run(tmp_path / "run"), capsys)
            assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]


def test_other_contents_are_refused_and_named(extract, fit, data, tmp_path, capsys, monkeypatch, load_once):
    begin(extract, tmp_path / "extraction", EXTRACTION)
    begin(fit, tmp_path / "training", TRAINING)
    capsys.readouterr()
    told = f"{tmp_path / 'extraction'} was begun with other {{}} than there are now; choose another --output"
    with monkeypatch.context() as patch:
        patch.setattr(extraction, "load_clip", lambda *_: load_once("demo-reward"))
        run = lambda: extract(tmp_path / "extraction")  # noqa: E731
        assert mistake(run, capsys) == told.format("weights of the student")
    listed = json.loads((data / "clean.json").read_text())
    listed[0]["caption"][0] = "a pig"
    (data / "clean.json").write_text(json.dumps(listed))
    assert mistake(run, capsys) == told.format("captions")
    shutil.rmtree(tmp_path / "features")
    write(tmp_path / "features", seed=1)
    told = f"{tmp_path / 'training'} was begun with other features than there are now; choose another --output"
    assert mistake(lambda: fit(tmp_path / "training"), capsys) == told
