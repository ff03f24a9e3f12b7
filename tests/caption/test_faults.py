"""What befalls a captioning run, an extraction of features and a training: full disks, kills and signals."""

import errno
import json
import resource
import signal

import pytest
import torch
from safetensors.torch import load_file

import caption.extract_features
import caption.main
import caption.train  # imported once, before processes are forked
from caption.training.features import Features, write_features
from tests import faults
from tests.faults import assert_stopped, assert_told, at_operation
from tests.tools import Results

assert caption.main and caption.extract_features and caption.train
WORDS = [f"a {first} {relation} a pig" for first in ("dog", "cat") for relation in ("above", "below")]


@pytest.fixture
def commands(tmp_path, data, checkpoint, lm_folder, load_once, monkeypatch):
    """Module -> its flags, of small runs."""
    for place in ("rlcf.run.setup", "caption.training.extract", "caption.evaluate"):
        monkeypatch.setattr(f"{place}.load_clip", lambda name, *_: load_once(name))
    monkeypatch.setattr("rlcf.run.run.commit", lambda: None)
    load_once("demo-student"), load_once("demo-reward")
    numbers = torch.arange(64.0).view(4, 16).cos()
    (tmp_path / "features").mkdir()
    write_features(tmp_path / "features", Features(WORDS, [0, 0, 1, 1], [0, 1, 2, 3], numbers[:2].clone(), numbers))
    model = ["--language-model", lm_folder("opt")]
    read = ["--data", data, "--student", "demo-student", "--workers", "0"]
    adapt = ["--datasets", "json:clean", "--limit", "3", "--reward", "demo-reward", "--checkpoint", checkpoint]
    adapt += ["--sample-k", "2", "--steps", "1", "--beams", "2", "--max-new-tokens", "4", "--evaluate"]
    adapt += ["--evaluate-clip", "demo-student", "--evaluate-prefix", "", "--no-evaluate-java", "--momentum"]
    tiny = ["--prefix-length", "3", "--clip-length", "2", "--layers", "1", "--heads", "4"]
    tiny += ["--epochs", "2", "--batch-size", "2", "--warmup", "1", "--lr", "1e-2"]
    where = ["--device", "cpu", "--output", tmp_path / "run"]
    return {
        "caption.main": [*read, *model, *adapt, *where],
        "caption.extract_features": [*read, "--captions", "clean.json", "--chunk", "3", *where],
        "caption.train": ["--data", tmp_path / "features", *model, *tiny, *where],
    }


def left(module, folder):
    """The numbers and texts that a command left."""
    if module == "caption.main":
        names = ("candidates.json", "candidates-zero-shot.json", "references.json", "scores.json")
        texts = [json.loads((folder / "json-clean" / name).read_text()) for name in names]
        texts[-1] = texts[-1]["scores"]
        return Results(folder).records(), texts
    file = "features.safetensors" if module == "caption.extract_features" else "mapper.safetensors"
    tensors = {name: tensor.tolist() for name, tensor in load_file(folder / file).items()}
    return tensors, sorted(file.name for file in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("module", ["caption.main", "caption.extract_features", "caption.train"])
def test_what_befalls_a_command_is_told_and_the_same_command_goes_on_with_the_same_numbers(module, commands, tmp_path):
    flags, folder = commands[module], tmp_path / "run"
    count = faults.operations(module, flags, folder)
    assert faults.command(module, flags).code == 0
    expected = left(module, folder)
    folder.rename(tmp_path / "undisturbed")
    for size in (300, 5000):
        ended = faults.command(module, flags, faults.limits(resource.RLIMIT_FSIZE, size))
        assert_told(ended, str(folder), "File too large", "make room there")
    for number, place in enumerate(range(4, count + 1, max(1, count // 8))):
        then = (faults.fails(errno.ENOSPC), faults.sends(signal.SIGKILL), faults.sends(signal.SIGTERM))[number % 3]
        ended = faults.command(module, flags, at_operation(place, folder, then))
        if ended.code == 2:
            assert_told(ended, str(folder), "No space left on device")
        elif ended.code not in (0, -signal.SIGKILL):
            assert_stopped(ended, "SIGTERM")
        assert ended.code == -signal.SIGKILL or {f.name for f in folder.rglob(".*")} <= {".lock"}
    ended = faults.command(module, flags)
    assert ended.code == 0, ended.printed
    assert left(module, folder) == expected


def test_a_training_that_runs_out_of_memory_names_the_flag_to_lower(commands, monkeypatch):
    def refuse(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("caption.training.training.caption_loss", refuse)
    ended = faults.command("caption.train", commands["caption.train"])
    assert_told(ended, "out of memory; lower --batch-size (now 2) and choose another --output")
