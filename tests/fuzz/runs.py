"""The folders of runs as readers: a damaged one is finished with the numbers of an undisturbed run, or refused."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

import caption.extract_features
import caption.main
import caption.train
import caption.training.extract
import classification.main
import retrieval.main
from caption.mapper import save_mapper
from caption.training.features import Features, read_features, write_features
from caption.training.training import Training
from rlcf.clip.weights import read_weights, tensors_in
from rlcf.run.parts import Part
from tests.fuzz.files import Tree, read_tree
from tests.fuzz.forged import forge
from tests.fuzz.models import FEATURES, mapper, with_models
from tests.fuzz.reader import Reader
from tests.fuzz.readers.captioners import CAPTIONS
from tests.fuzz.readers.lists import LISTED, as_json
from tests.tools import write_picture

TIMED = {"seconds_per_sample", "peak_memory_mb", "seconds_saved", "command", "versions", "commit", "checksum"}


def left(folder: Path) -> Any:
    """All that a run leaves that must be the same bit for bit."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.name == "records.jsonl":
            records = [json.loads(line) for line in file.read_text().splitlines()]
            found[name] = [{key: value for key, value in record.items() if key != "seconds"} for record in records]
        elif file.name in ("results.json", "loss.json") or file.name.startswith(("candidates", "references", "scores")):
            found[name] = _untimed(json.loads(file.read_text()))
        elif file.name in ("logits.safetensors", "mapper.safetensors"):
            found[name] = _bytes_of(load_file(file))
        elif file.name == "ckpt-latest.pt":
            found[name] = _bytes_of(tensors_in(read_weights(file)))
        elif file.name == "captions.json":
            features = read_features(str(folder))
            found[name] = features.captions, features.digest
        elif file.name == "classnames.txt":
            found[name] = file.read_text()
    return found


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _untimed(part) for key, part in value.items() if key not in TIMED}
    return value


def _bytes_of(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (str(tensor.dtype), tuple(tensor.shape), tensor.tolist()) for name, tensor in tensors.items()}


@contextmanager
def stopped(owner: Any, name: str, count: int) -> Iterator[None]:
    """In its body Ctrl-C comes after `count` calls of a function."""
    original, calls = getattr(owner, name), []

    def stopping(*given: Any, **named: Any) -> Any:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*given, **named)

    with patch.object(owner, name, stopping), suppress(KeyboardInterrupt):
        yield


@dataclass(frozen=True)
class Runs:
    """A kind of run.

    prepare: writes what a run reads into a folder; run: from that folder and the run's, with further flags; stop: the
    function and its calls after which a run is stopped; other: flags of another run; forge: as in `Reader`.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path, Path, list[str]], None]
    stop: tuple[Any, str, int]
    other: list[str]
    weight: int = 3
    forge: Callable[[Tree, random.Random], tuple[str, Tree]] | None = forge

    def make(self, beside: Path) -> None:
        """Prepare a folder, and run in it: "finished" and "stopped", and "foreign finished" and "foreign stopped"."""
        for foreign, flags in (("", []), ("foreign ", self.other)):
            self.make_stopped(beside, foreign, flags)
            self.run(beside, beside / f"{foreign}finished", flags)

    def make_stopped(self, beside: Path, foreign: str = "", flags: Sequence[str] = ()) -> None:
        """Prepare a folder, and run in it: "stopped", with something before its name and further flags."""
        self.prepare(beside)
        with stopped(*self.stop):
            self.run(beside, beside / f"{foreign}stopped", [*flags])

    def seeds(self, beside: Path) -> dict[str, Tree]:
        self.make(beside)
        return {
            seed: {f"run/{file}": content for file, content in read_tree(beside / seed).items()}
            for seed in ("finished", "stopped")
        }

    def read(self, folder: Path, seed: str, beside: Path) -> None:
        self.run(beside, folder / "run", [])
        if left(folder / "run") != left(beside / "finished"):
            raise AssertionError("other results than those of an undisturbed run")

    @property
    def reader(self) -> Reader:
        return Reader(self.name, self.seeds, self.read, self.weight, forge=self.forge, command=True)


COMMON = ["--workers", "0", "--device", "cpu", "--steps", "1", "--lr", "1e-2", "--student", "tiny", "--reward", "tiny"]


def _scenes(folder: Path) -> None:
    for number, listed in enumerate(LISTED):
        write_picture(folder / "data" / str(listed["image"]), number, (40, 32))
    (folder / "data" / "list.json").write_bytes(as_json(LISTED))


def _classes(folder: Path) -> None:
    for number, name in enumerate(("cat/0", "cat/1", "dog/0", "owl/0")):
        write_picture(folder / "data" / f"{name}.png", number, (40, 32))


def _of(main: Callable[[list[str]], None], *flags: object) -> Callable[[Path, Path, list[str]], None]:
    def run(beside: Path, output: Path, more: list[str]) -> None:
        where = ["--data", beside / "data", "--output", output]
        with_models(lambda: main([*map(str, [*where, *COMMON, *flags, *more])]))

    return run


MOMENTUM = ["--momentum", "--momentum-every", "2", "--momentum-decay", "0.5"]
CLASSIFY = ["--datasets", "folder", "--views", "4", "--selection", "0.5", "--sample-k", "2", "--save-logits"]
RETRIEVE = ["--datasets", "json:list", "--sample-k", "2"]


def _captioning(beside: Path, output: Path, more: list[str]) -> None:
    own = ["--datasets", "json:list", "--checkpoint", beside / "mapper.safetensors", "--language-model", "tiny"]
    own += ["--sample-k", "2", "--beams", "2", "--max-new-tokens", "3", *MOMENTUM]
    _of(caption.main.main, *own)(beside, output, more)


def _prepare_captioning(folder: Path) -> None:
    _scenes(folder)
    save_mapper(folder / "mapper.safetensors", mapper(), {"heads": 4})


def _extraction(beside: Path, output: Path, more: list[str]) -> None:
    flags = ["--data", beside / "data", "--output", output, "--captions", "list.json", "--chunk", 2]
    flags += ["--student", "tiny", "--workers", 0, "--device", "cpu", *more]
    with_models(lambda: caption.extract_features.main([*map(str, flags)]))


def _prepare_training(folder: Path) -> None:
    (folder / "features").mkdir(parents=True, exist_ok=True)
    rows = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0))
    write_features(folder / "features", Features(CAPTIONS, [0, 1, 2, 3], [0, 1, 2, 3], rows, rows.flip(0)))


def _training(beside: Path, output: Path, more: list[str]) -> None:
    flags = ["--data", beside / "features", "--output", output, "--language-model", "tiny", "--prefix-length", 3]
    flags += ["--clip-length", 2, "--layers", 1, "--heads", 4, "--device", "cpu", "--epochs", 2, "--batch-size", 2]
    flags += ["--warmup", 1, "--lr", "1e-2", *more]
    with patch("caption.training.training.write_curve", lambda folder, history: None):
        with_models(lambda: caption.train.main([*map(str, flags)]))


RUNS = [
    Runs(
        "classification-runs",
        _classes,
        _of(classification.main.main, *CLASSIFY, "--tune", "norm", *MOMENTUM),
        (Part, "append", 3),
        ["--lr", "2e-2"],
    ),
    Runs(
        "online-runs",
        _classes,
        _of(classification.main.main, *CLASSIFY[:6], "--method", "tda"),
        (Part, "append", 3),
        ["--seed", "2"],
    ),
    Runs(
        "retrieval-runs",
        _scenes,
        _of(retrieval.main.main, *RETRIEVE, "--direction", "both"),
        (Part, "append", 4),
        ["--lr", "2e-2"],
    ),
    Runs(
        "momentum-retrieval-runs",
        _scenes,
        _of(retrieval.main.main, *RETRIEVE, "--direction", "t2i", "--save-logits", *MOMENTUM),
        (Part, "append", 3),
        ["--lr", "2e-2"],
    ),
    Runs("captioning-runs", _prepare_captioning, _captioning, (Part, "append", 2), ["--seed", "2"]),
    Runs(
        "extractions",
        _scenes,
        _extraction,
        (caption.training.extract, "encode_images", 1),
        ["--batch-size", "2"],
        2,
        None,
    ),
    Runs("trainings", _prepare_training, _training, (Training, "validate", 1), ["--seed", "2"], 2, None),
]
