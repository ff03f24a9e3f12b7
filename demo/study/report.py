"""The study's tables, picture and intervals, from the outcomes that it keeps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo.report import markdown
from demo.study.methods import Task
from demo.study.outcomes import MEASURES, Pairs, Runs, pairs_of, read_runs
from rlcf.errors import UserError
from rlcf.metrics import calibration_error

PASSES = ("student_images", "student_texts", "reward_images")
RESAMPLES, SEED = 10_000, 0
Costs = Mapping[str, Mapping[str, Any]]
DIRECTIONS = {"": "", "i2t": "Image to text", "t2i": "Text to image"}


def hierarchical_interval(differences: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """The mean over worlds of paired differences, with its 95% interval of a bootstrap over worlds and over images.

    differences: (n,) of each world, all on the same images. A resample draws worlds, and images that are the same in
    each of them. Returns (mean, low, high), percent.
    """
    rng = np.random.default_rng(SEED)
    values = np.stack(differences, axis=1)  # (n, worlds)
    distinct, counts = np.unique(
        values, axis=0, return_counts=True
    )  # images resampled: multinomial counts of these rows
    means = rng.multinomial(len(values), counts / len(values), size=RESAMPLES) @ distinct / len(values)
    worlds = rng.integers(len(differences), size=(RESAMPLES, len(differences)))
    drawn = np.take_along_axis(means, worlds, axis=1).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return 100 * float(values.mean()), 100 * float(low), 100 * float(high)


def report(place: Path, task: Task) -> str:
    """A task's tables, from the folder that holds its outcomes. Raises UserError without any."""
    pairs, costs = pairs_of(place), read_costs(place)
    if not pairs:
        raise UserError(f"{place} holds no outcomes; make them first: python -m demo.study run")
    lines = []
    for direction in task.directions:
        runs = _runs(place, task, pairs, direction)
        any_run = next(iter(runs["zeroshot"].values()))
        counts = f"n {len(any_run[task.styles[0]].values)} a style and pair"
        told = f"{len(pairs)} pairs of models" if len(pairs) > 1 else "one pair of models"
        title = f"{DIRECTIONS[direction]}: " if direction else ""
        lines += [f"{title}{told}, {counts}, {place.name.replace('-', ', seed ')}.", ""]
        absent = [name for name in task.methods if name not in runs]
        if absent:
            lines += [f"Not run with every pair, and left out: {', '.join(absent)}.", ""]
        lines += [value_table(runs, costs, task)]
        lines += ["", gain_table(runs, task), ""]
        if any(name.startswith("anchored") for name in runs) and "rlcf" in runs:
            lines += [style_table(runs, task), ""]
        if task.script == "classification":
            lines += [cost_table(runs, costs, task), ""]
    return "\n".join(lines)


def draw_report(place: Path, task: Task) -> Path | None:
    """Draw a task's accuracy against its cost beside its outcomes. None where no cost was measured."""
    file, costs = place / "study.png", read_costs(place)
    if not costs or task.script != "classification":
        return None
    draw_cost(file, _runs(place, task, pairs_of(place), ""), costs, task)
    return file


def _runs(place: Path, task: Task, pairs: Sequence[int], direction: str) -> Runs:
    runs = read_runs(place, task, pairs, direction)
    if "zeroshot" not in runs:
        raise UserError(f"{place} lacks the zero-shot runs; run them: python -m demo.study run --methods zeroshot")
    return runs


def read_costs(place: Path) -> Costs:
    """What `demo.study cost` measured; empty before."""
    file = place / "costs.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def milliseconds(costs: Costs, name: str) -> float | None:
    """Of an image, the median over rounds."""
    return float(np.median(costs[name]["milliseconds"])) if name in costs else None


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


def value_table(runs: Runs, costs: Costs, task: Task) -> str:
    """What each method reaches on each style and on the shifts together, the mean over pairs; milliseconds an image."""
    shifts, captions = task.styles[1:], task.script == "caption"
    header = [MEASURES[task.script][0], *task.styles, "shifts", *(["CIDEr on shifts"] if captions else [])]
    header += ["ms"] if costs else []
    rows = []
    for name, pairs in runs.items():
        row = [task.methods[name][0], *(f"{mean_of(pairs, [style]):.1f}" for style in task.styles)]
        row.append(f"{mean_of(pairs, shifts):.1f}")
        if captions:
            row.append(f"{np.mean([cells[style].cider for cells in pairs.values() for style in shifts]):.1f}")
        cost = milliseconds(costs, name)
        rows.append([*row, *([] if cost is None else [f"{cost:.0f}"])])
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
    """Paired gains of the anchored methods, style by style, over RLCF (of what they tune) and the other baselines."""
    rows = []
    for name in (run for run in runs if run.startswith("anchored")):
        rlcf = "rlcf-prompt" if "prompt" in name else "rlcf"
        for other in [rlcf, *(other for other in task.baselines if other not in ("zeroshot", "rlcf"))]:
            if other in runs:
                gains = [interval_of(runs[name], runs[other], [style]) for style in task.styles]
                rows.append([f"{task.methods[name][0]} over {task.methods[other][0]}", *gains])
    return markdown(["gain, 95% interval", *task.styles], rows)


def cost_table(runs: Runs, costs: Costs, task: Task) -> str:
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
        told = [_passes(costs[name], what) for what in PASSES] if name in costs else []
        rows.append([task.methods[name][0], *(f"{e:.1f}" for e in errors), *told])
    return markdown(header, rows)


def _passes(passes: Mapping[str, Any], what: str) -> str:
    forward, backward = passes[what], passes[f"{what}_back"]
    return f"{forward:g} + {backward:g}" if backward else f"{forward:g}"


def draw_cost(file: Path, runs: Runs, costs: Costs, task: Task) -> None:
    """Draw the mean over the shifts against the cost, a point a method, and the frontier of those that none beats."""
    from matplotlib.figure import Figure

    times = {name: milliseconds(costs, name) for name in runs}
    points = {name: (time, mean_of(runs[name], task.styles[1:])) for name, time in times.items() if time is not None}
    if not points:
        return
    frontier: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not frontier or points[name][1] > points[frontier[-1]][1]:
            frontier.append(name)
    figure = Figure(figsize=(9.5, 6.8), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot(*zip(*(points[name] for name in frontier), strict=True), color="#8ab4f8", zorder=1)
    low, high = min(y for _, y in points.values()) - 2, max(y for _, y in points.values()) + 2
    ranked = sorted(points, key=lambda name: points[name][1])
    heights = spread([(points[name][1] - low) / (high - low) for name in ranked], 0.04)
    for name, height in zip(ranked, heights, strict=True):
        best = name in frontier
        axes.scatter(*points[name], color="#1a7f37" if best else "#57606a", zorder=2)
        axes.annotate(
            task.methods[name][0],
            points[name],
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            fontweight="bold" if best else "normal",
            arrowprops={"arrowstyle": "-", "color": "#d0d7de", "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 3},
            annotation_clip=False,
        )
    axes.set(
        xscale="log",
        ylim=(low, high),
        xlabel="milliseconds an image, one thread of a CPU",
        ylabel=f"{MEASURES[task.script][0]}, mean over the shifts",
    )
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Rising places in [0, 1] moved as little as it takes to lie `gap` apart.

    >>> spread([0.5, 0.5, 1.0], 0.25)
    [0.5, 0.75, 1.0]
    >>> spread([0.0, 1.0, 1.0], 0.25)
    [0.0, 0.75, 1.0]
    """
    spaced: list[float] = []
    for place in places:
        spaced.append(max(place, spaced[-1] + gap) if spaced else place)
    end = 1.0
    for number in reversed(range(len(spaced))):
        spaced[number] = min(spaced[number], end)
        end = spaced[number] - gap
    return spaced
