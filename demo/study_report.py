"""The study's tables, picture and intervals, from its runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo.report import markdown, object_recall, read_records, read_results
from demo.study_methods import Task
from rlcf.errors import UserError
from rlcf.metrics import calibration_error
from rlcf.run.files import write_atomically

RESAMPLES, SEED = 10_000, 0
MEASURES: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "classification": ("top-1 %", lambda record: float(record["adapted"] == record["label"])),
    "retrieval": ("R@1 %", lambda record: float(record["adapted_rank"] == 1)),
    "caption": ("things named %", lambda record: object_recall(record, "adapted") / 100),
}
"""Script -> what is measured, and its value in [0, 1] from a record."""
DIRECTIONS = {"": "", "i2t": "Image to text", "t2i": "Text to image"}


@dataclass(frozen=True)
class Cell:
    """One method's run over one style with one pair.

    values: (n,) in [0, 1]; confidence: (n,) of the answers, where there is one; seconds: mean of an image; cider: of
    captions.
    """

    values: np.ndarray
    seconds: float
    confidence: np.ndarray | None = None
    cider: float | None = None


Pairs = Mapping[int, dict[str, Cell]]
"""Pair of models -> style -> what was measured of one method."""
Runs = dict[str, Pairs]


def read_cell(folder: Path, task: Task, style: str, direction: str) -> Cell:
    """One style of a run. Texts of one image count together: their mean is the image's value."""
    dataset = f"{task.lists}:{style}"
    end = f"-{direction}" if direction else ""
    records = read_records(folder / f"{dataset.replace(':', '-')}{end}" / "records.jsonl")
    values = np.array([MEASURES[task.script][1](record) for record in records])
    if direction == "t2i":
        images = np.array([record["targets"][0] for record in records])
        values = np.bincount(images, values) / np.bincount(images)
    confidence = [record["adapted_confidence"] for record in records] if task.script == "classification" else None
    cider = None
    if task.script == "caption":
        cider = 100 * read_results(folder)[dataset]["adapted"]["CIDEr"]
    seconds = float(np.mean([record["seconds"] for record in records]))
    return Cell(values, seconds, None if confidence is None else np.array(confidence), cider)


def hierarchical_interval(differences: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The mean over worlds of paired differences, with its 95% interval of a bootstrap over worlds, then their images.

    differences: (n,) of each world. Returns (mean, low, high), percent.
    """
    rng = np.random.default_rng(SEED)
    means = []
    for values in differences:  # the images of a world, resampled: the multinomial counts of its distinct differences
        distinct, counts = np.unique(values, return_counts=True)
        draws = rng.multinomial(len(values), counts / len(values), size=(RESAMPLES, len(differences)))
        means.append(draws @ distinct / len(values))  # (RESAMPLES, worlds)
    worlds = rng.integers(len(differences), size=(RESAMPLES, len(differences)))
    slots = np.arange(len(differences))
    drawn = np.stack(means)[worlds, np.arange(RESAMPLES)[:, None], slots[None]].mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return 100 * float(np.mean([values.mean() for values in differences])), 100 * float(low), 100 * float(high)


def write_report(place: Path, task: Task) -> None:
    """Print a task's tables, and write study.md and, for classification, study.png. Raises UserError without runs."""
    described = place / "study.json"
    if not described.is_file():
        raise UserError(f"{place} holds no study; run it first: python -m demo.study run")
    about = json.loads(described.read_text(encoding="utf-8"))
    lines = []
    for direction in task.directions:
        runs = read_runs(place, task, about["pairs"], direction)
        if "zeroshot" not in runs:
            raise UserError(f"{place} lacks the zero-shot runs; run them: python -m demo.study run --methods zeroshot")
        any_run = next(iter(runs["zeroshot"].values()))
        counts = f"n {len(any_run[task.styles[0]].values)} a style and pair"
        pairs = f"{len(about['pairs'])} pairs of models" if len(about["pairs"]) > 1 else "one pair of models"
        title = f"{DIRECTIONS[direction]}: " if direction else ""
        lines += [f"{title}{pairs}, {counts}, pictures of seed {about['seed']}.", "", value_table(runs, task)]
        lines += ["", gain_table(runs, task), "", style_table(runs, task), ""]
        if task.script == "classification":
            lines += [cost_table(runs, place, task), ""]
            draw_cost(place / "study.png", runs, task)
    text = "\n".join(lines)
    write_atomically(place / "study.md", text)
    print(text, end="")
    print(f"tables: {place / 'study.md'}")


def read_runs(place: Path, task: Task, pairs: Sequence[int], direction: str) -> Runs:
    """The methods whose runs are done with every pair."""
    runs: Runs = {}
    for name in task.methods:
        folders = {pair: place / f"pair-{pair}" / name for pair in pairs}
        if all((folder / "done").exists() for folder in folders.values()):
            runs[name] = {
                pair: {style: read_cell(folder, task, style, direction) for style in task.styles}
                for pair, folder in folders.items()
            }
    return runs


def values_of(pairs: Pairs, styles: Sequence[str]) -> list[np.ndarray]:
    """Each world's values over styles, one after another."""
    return [np.concatenate([cells[style].values for style in styles]) for cells in pairs.values()]


def mean_of(pairs: Pairs, styles: Sequence[str]) -> float:
    """The mean over worlds, percent."""
    return 100 * float(np.mean([values.mean() for values in values_of(pairs, styles)]))


def interval_of(after: Pairs, before: Pairs, styles: Sequence[str]) -> str:
    """The paired gain over styles as it is printed, percent."""
    pairs = zip(values_of(after, styles), values_of(before, styles), strict=True)
    mean, low, high = hierarchical_interval([one - other for one, other in pairs])
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


def value_table(runs: Runs, task: Task) -> str:
    """What each method reaches on each style and on the shifts together, the mean over pairs; milliseconds an image."""
    shifts, captions = task.styles[1:], task.script == "caption"
    header = [MEASURES[task.script][0], *task.styles, "shifts", *(["CIDEr on shifts"] if captions else []), "ms"]
    rows = []
    for name, pairs in runs.items():
        row = [task.methods[name][0], *(f"{mean_of(pairs, [style]):.1f}" for style in task.styles)]
        row.append(f"{mean_of(pairs, shifts):.1f}")
        if captions:
            row.append(f"{np.mean([cells[style].cider for cells in pairs.values() for style in shifts]):.1f}")
        rows.append([*row, f"{milliseconds(pairs):.0f}"])
    return markdown(header, rows)


def gain_table(runs: Runs, task: Task) -> str:
    """Paired gains over the baselines on the shifts together, and over zero-shot on clean pictures."""
    others = [name for name in task.baselines if name in runs]
    header = ["gain on the shifts, 95% interval", *(f"over {task.methods[other][0]}" for other in others)]
    header.append(f"{task.styles[0]}, over zero-shot")
    rows = []
    for name, pairs in runs.items():
        cells = [interval_of(pairs, runs[other], task.styles[1:]) if other != name else "" for other in others]
        clean = interval_of(pairs, runs["zeroshot"], task.styles[:1]) if name != "zeroshot" else ""
        rows.append([task.methods[name][0], *cells, clean])
    return markdown(header, rows)


def style_table(runs: Runs, task: Task) -> str:
    """Paired gains of the anchored methods over RLCF and KD, style by style."""
    others = [name for name in ("rlcf", "kd", "rerank", "reward") if name in runs and name in task.baselines]
    rows = []
    for name in runs:
        if name.startswith("anchored"):
            for other in others:
                gains = [interval_of(runs[name], runs[other], [style]) for style in task.styles]
                rows.append([f"{task.methods[name][0]} over {task.methods[other][0]}", *gains])
    return markdown(["gain, 95% interval", *task.styles], rows)


def cost_table(runs: Runs, place: Path, task: Task) -> str:
    """Calibration error on clean pictures and shifts, and the passes of an image: forward + backward."""
    header = ["", f"ECE {task.styles[0]}", "ECE shifts", "student's images", "student's texts", "reward's images"]
    rows = []
    for name, pairs in runs.items():
        errors = [
            np.mean(
                [
                    calibration_error(cells[style].confidence, cells[style].values)  # type: ignore[arg-type]
                    for cells in pairs.values()
                    for style in styles
                ]
            )
            for styles in (task.styles[:1], task.styles[1:])
        ]
        passes = json.loads((place / f"pair-{next(iter(pairs))}" / name / "done").read_text(encoding="utf-8"))
        told = [_passes(passes, f"student_{what}") for what in ("images", "texts")]
        rows.append([task.methods[name][0], *(f"{e:.1f}" for e in errors), *told, _passes(passes, "reward_images")])
    return markdown(header, rows)


def _passes(passes: Mapping[str, float], what: str) -> str:
    forward, backward = passes[what], passes[f"{what}_back"]
    return f"{forward:g} + {backward:g}" if backward else f"{forward:g}"


def milliseconds(pairs: Pairs) -> float:
    """Of an image, the mean over pairs and styles."""
    return 1000 * float(np.mean([cell.seconds for cells in pairs.values() for cell in cells.values()]))


def draw_cost(file: Path, runs: Runs, task: Task) -> None:
    """Draw the mean over the shifts against the cost, a point a method, and the frontier of those that none beats."""
    from matplotlib.figure import Figure

    points = {name: (milliseconds(pairs), mean_of(pairs, task.styles[1:])) for name, pairs in runs.items()}
    frontier: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not frontier or points[name][1] > points[frontier[-1]][1]:
            frontier.append(name)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot(*zip(*(points[name] for name in frontier), strict=True), color="#8ab4f8", zorder=1)
    for name, (x, y) in points.items():
        axes.scatter(x, y, color="#1a7f37" if name in frontier else "#57606a", zorder=2)
        axes.annotate(task.methods[name][0], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds an image", ylabel=f"{MEASURES[task.script][0]}, mean over the shifts")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
