"""What the study keeps of a run: what became of each image. A few kilobytes, so that the tables need no run again."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo.report import object_recall
from demo.runs import read_records, read_results
from demo.study.methods import Task
from rlcf.errors import UserError
from rlcf.run.files import write_atomically

MEASURES: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "classification": ("top-1 %", lambda record: float(record["adapted"] == record["label"])),
    "retrieval": ("R@1 %", lambda record: float(record["adapted_rank"] == 1)),
    "caption": ("things named %", lambda record: object_recall(record, "adapted") / 100),
}
"""Script -> what is measured, and its value in [0, 1] from a record."""


@dataclass(frozen=True)
class Cell:
    """One method's run over one style with one pair.

    values: (n,) in [0, 1]; confidence: (n,) of the answers, where there is one; cider: of captions.
    """

    values: np.ndarray
    confidence: np.ndarray | None = None
    cider: float | None = None


Pairs = Mapping[int, dict[str, Cell]]
"""Pair of models -> style -> what was measured of one method."""
Runs = dict[str, Pairs]


def keep_outcome(run: Path, task: Task, file: Path) -> None:
    """Write what became of each image of a run to a file."""
    arrays: dict[str, np.ndarray] = {}
    for style in task.styles:
        for direction in task.directions:
            cell = _cell(run, task, style, direction)
            arrays |= {
                f"{style}/{direction}/{name}": np.float32(value)
                for name, value in vars(cell).items()
                if value is not None
            }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # of allow_pickle
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, content.getvalue())


def _cell(run: Path, task: Task, style: str, direction: str) -> Cell:
    """One style of a run. Texts of one image count together: their mean is the image's value."""
    dataset = f"{task.lists}:{style}"
    end = f"-{direction}" if direction else ""
    records = read_records(run, f"{dataset}{end}")
    values = np.array([MEASURES[task.script][1](record) for record in records])
    if direction == "t2i":
        images = np.array([record["targets"][0] for record in records])
        values = np.bincount(images, values) / np.bincount(images)
    confidence, cider = None, None
    if task.script == "classification":
        confidence = np.array([record["adapted_confidence"] for record in records])
    if task.script == "caption":
        cider = 100 * read_results(run)[dataset]["adapted"]["CIDEr"]
    return Cell(values, confidence, cider)


def read_runs(place: Path, task: Task, pairs: Sequence[int], direction: str) -> Runs:
    """The methods whose outcomes with every pair are kept in a folder."""
    runs: Runs = {}
    for name in task.methods:
        files = {pair: outcome_file(place, pair, name) for pair in pairs}
        if all(file.is_file() for file in files.values()):
            runs[name] = {pair: _read(file, task, direction) for pair, file in files.items()}
    return runs


def pairs_of(place: Path) -> list[int]:
    """The pairs of models whose zero-shot outcomes are kept in a folder."""
    return sorted(int(file.parent.name.removeprefix("pair-")) for file in place.glob("pair-*/zeroshot.npz"))


def outcome_file(place: Path, pair: int, name: str) -> Path:
    return place / f"pair-{pair}" / f"{name}.npz"


def _read(file: Path, task: Task, direction: str) -> dict[str, Cell]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            cells = {}
            for style in task.styles:
                start = f"{style}/{direction}/"
                found = {key.removeprefix(start): arrays[key] for key in arrays.files if key.startswith(start)}
                cells[style] = Cell(found["values"], found.get("confidence"), found.get("cider"))
            return cells
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} is no outcome of the study; remove it and run the study again") from error
