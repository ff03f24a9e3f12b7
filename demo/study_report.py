"""The study's table, picture and intervals, from its runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demo.report import markdown, read_records
from rlcf.errors import UserError
from rlcf.metrics import calibration_error
from rlcf.run.files import write_atomically

RESAMPLES, SEED = 10_000, 0


def read_run(folder: Path, styles: Sequence[str]) -> dict[str, Any]:
    """A run's adapted answers: by style "correct" and "confidence", (n,), and the mean "seconds" an image."""
    found = {}
    for style in styles:
        records = read_records(folder / f"folder-{style}" / "records.jsonl")
        found[style] = {
            "seconds": np.mean([record["seconds"] for record in records]),
            "correct": np.array([record["adapted"] == record["label"] for record in records]),
            "confidence": np.array([record["adapted_confidence"] for record in records]),
        }
    return found


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


def shifts_of(runs: Mapping[int, dict[str, Any]], style: str, styles: Sequence[str]) -> list[np.ndarray]:
    """Correctness of each world's images of a style; of all styles but the clean one for "shifts"."""
    chosen = [other for other in styles if other != "clean"] if style == "shifts" else [style]
    return [np.concatenate([run[one]["correct"] for one in chosen]).astype(float) for run in runs.values()]


def write_report(output: Path, titles: Mapping[str, str], styles: Sequence[str]) -> None:
    """Print the tables, and write study.md and study.png. Raises UserError where no run is there."""
    described = output / "study.json"
    if not described.is_file():
        raise UserError(f"{output} holds no study; run it first: python -m demo.study run")
    about = json.loads(described.read_text())
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for name in titles:
        folders = {pair: output / f"pair-{pair}" / name for pair in about["pairs"]}
        if all((folder / "done").exists() for folder in folders.values()):
            runs[name] = {pair: read_run(folder, styles) for pair, folder in folders.items()}
    if "zeroshot" not in runs:
        raise UserError(f"{output} lacks the zero-shot runs; run them: python -m demo.study run --methods zeroshot")
    lines = [
        f"{len(about['pairs'])} pairs of models, n {100 * about['per_class']} a style and pair, seed {about['seed']}.",
        "",
        accuracy_table(runs, titles, styles),
        "",
        gain_table(runs, titles, styles),
    ]
    text = "\n".join(lines) + "\n"
    write_atomically(output / "study.md", text)
    draw_cost(output / "study.png", runs, titles, styles)
    print(text, end="")
    print(f"table: {output / 'study.md'}, picture: {output / 'study.png'}")


def accuracy_table(runs: Mapping[str, Any], titles: Mapping[str, str], styles: Sequence[str]) -> str:
    """Top-1 of each method and style, the mean over pairs; calibration error on the shifts; milliseconds an image."""
    header = ["top-1 %", *styles, "shifts", "ECE", "ms"]
    rows = []
    for name, pairs in runs.items():
        means = [100 * np.mean([run[style]["correct"].mean() for run in pairs.values()]) for style in styles]
        shifts = 100 * np.mean([values.mean() for values in shifts_of(pairs, "shifts", styles)])
        ece = np.mean(
            [
                calibration_error(run[style]["confidence"], run[style]["correct"])
                for run in pairs.values()
                for style in styles
                if style != "clean"
            ]
        )
        rows.append(
            [titles[name], *(f"{mean:.1f}" for mean in means), f"{shifts:.1f}", f"{ece:.1f}", f"{cost(pairs):.0f}"]
        )
    return markdown(header, rows)


def gain_table(runs: Mapping[str, Any], titles: Mapping[str, str], styles: Sequence[str]) -> str:
    """Paired gains over zero-shot, KD and the reward model alone, on the shifts and on clean pictures."""
    others = [name for name in ("zeroshot", "kd", "reward") if name in runs]
    header = ["gain, 95% interval", *(f"over {titles[other]}" for other in others), "clean, over zero-shot"]
    rows = []
    for name, pairs in runs.items():
        cells = []
        for style, other in [*(("shifts", other) for other in others), ("clean", "zeroshot")]:
            before, after = (shifts_of(part, style, styles) for part in (runs[other], pairs))
            mean, low, high = hierarchical_interval([a - b for a, b in zip(after, before, strict=True)])
            cells.append(f"{mean:+.1f} ({low:+.1f} to {high:+.1f})" if name != other else "")
        rows.append([titles[name], *cells])
    return markdown(header, rows)


def cost(pairs: Mapping[int, dict[str, Any]]) -> float:
    """Milliseconds an image, the mean over pairs and styles."""
    return 1000 * float(np.mean([part["seconds"] for run in pairs.values() for part in run.values()]))


def draw_cost(file: Path, runs: Mapping[str, Any], titles: Mapping[str, str], styles: Sequence[str]) -> None:
    """Draw the accuracy on the shifts against the cost, a point a method, and the frontier of those that none beats."""
    from matplotlib.figure import Figure

    points = {
        name: (cost(pairs), 100 * float(np.mean([v.mean() for v in shifts_of(pairs, "shifts", styles)])))
        for name, pairs in runs.items()
    }
    frontier: list[str] = []
    for name in sorted(points, key=lambda name: (points[name][0], -points[name][1])):
        if not frontier or points[name][1] > points[frontier[-1]][1]:
            frontier.append(name)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes: Any = figure.subplots()
    axes.plot(*zip(*(points[name] for name in frontier), strict=True), color="#8ab4f8", zorder=1)
    for name, (x, y) in points.items():
        axes.scatter(x, y, color="#1a7f37" if name in frontier else "#57606a", zorder=2)
        axes.annotate(titles[name], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds an image", ylabel="top-1 on the shifts, percent")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
