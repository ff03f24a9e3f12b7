"""The demo's tables, from the results of its runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.art import NAMES
from demo.runs import read_records, read_results
from rlcf.metrics import paired_bootstrap

CLASSIFIED = {
    "tpt": "TPT, prompt",
    "kd": "KD",
    "rlcf": "RLCF",
    "anchored-mean": "RLCF anchored",
    "zero-reward": "ZERO by reward",
    "reward": "reward alone",
    "product": "product of both",
}
"""Run of the study -> the method's name in the table."""

CAPTIONERS = {"clipcap": "ClipCap", "capdec": "CapDec"}
WHEN = ("zero_shot", "adapted")
QUERIES = {"txt": "image", "img": "text"}
"""Found by recall -> searched with."""


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text too. A row may be shorter than the header."""
    cells = [list(row) + [""] * (len(header) - len(row)) for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def gain(interval: dict[str, float], scale: float = 1.0) -> str:
    """
    >>> gain({"mean": 12.5, "low": 8.0, "high": 17.25})
    '+12.5 (+8.0 to +17.2)'
    >>> gain({"mean": 0.031, "low": -0.002, "high": 0.06})
    '+0.031 (-0.002 to +0.060)'
    """
    mean, low, high = (scale * interval[key] for key in ("mean", "low", "high"))
    digits = 3 if 0 < max(abs(low), abs(high)) < 1 else 1
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def classification_table(folder: Path) -> str:
    """Top-1 of each method per style, and its gain over the student on all styles but the clean one together."""
    runs = {name: read_results(folder / name) for name in CLASSIFIED}
    styles = list(runs["rlcf"])
    names = [style.removeprefix("folder:") for style in styles]
    rows = [["images", *(str(runs["rlcf"][style]["n"]) for style in styles)]]
    rows += [["zero-shot", *(f"{runs['rlcf'][style]['zero_shot']['top1']:.1f}" for style in styles)]]
    for name, method in CLASSIFIED.items():
        records = [record for style in styles[1:] for record in read_records(folder / name, style)]
        before, after = ([record[when] == record["label"] for record in records] for when in WHEN)
        mean, low, high = paired_bootstrap(before, after)
        seconds = sum(runs[name][style]["seconds_per_sample"] for style in styles) / len(styles)
        top1 = [f"{runs[name][style]['adapted']['top1']:.1f}" for style in styles]
        gained = gain({"mean": mean, "low": low, "high": high}, scale=100)
        rows.append([method, *top1, gained, f"{seconds:.3f}"])
    return markdown(["top-1 %", *names, "gain on the shifts", "s an image"], rows)


def retrieval_table(folder: Path) -> str:
    """Recall at 1 and 5 per style and kind of query: zero-shot, then with RLCF; at 1 of the reward model alone."""
    adapted, alone = read_results(folder / "rlcf"), read_results(folder / "reward")
    rows = []
    for name, result in adapted.items():
        kind = {"-i2t": "txt", "-t2i": "img"}.get(name[-4:])
        if kind is None:  # both directions in one
            continue
        cells = [name[:-4].removeprefix("json:"), f"{QUERIES[kind]}, n {result['n']}"]
        for cutoff in (1, 5):
            cells += [f"{result[when][f'{kind}_r{cutoff}']:.1f}" for when in WHEN]
        cells.insert(4, gain(result[f"{kind}_r1_gain"]))
        cells.append(f"{alone[name]['zero_shot'][f'{kind}_r1']:.1f}")
        rows.append([*cells, f"{result['seconds_per_sample']:.2f}"])
    return markdown(["%", "query", "R@1", "RLCF", "gain, 95% interval", "R@5", "RLCF", "reward", "s a query"], rows)


def named_things(text: str) -> set[str]:
    return {name for name in NAMES if name in text.split()}


def object_recall(record: dict[str, Any], when: str) -> float:
    """Share of the scene's things that a caption names, percent."""
    things = named_things(record["references"][0])
    return 100.0 * len(things & named_things(record[when])) / len(things)


def captioning_table(folder: Path) -> str:
    """Scores of the captions per captioner and style."""
    rows = []
    for run, captioner in CAPTIONERS.items():
        for style, result in read_results(folder / run).items():
            records = read_records(folder / run, style)
            cells = [captioner, f"{style.removeprefix('json:')} (n {result['n']})"]
            for metric, named, scale in (
                ("CIDEr", "CIDEr", 100),
                ("BLEU-4", "BLEU-4 of captions", 100),
                ("CLIPScore", "CLIPScore", 1),
                ("reward", None, 1),
            ):
                interval = result["reward_gain"] if named is None else result["gains"][named]
                values = [f"{scale * result[when][metric]:.{1 if scale > 1 else 3}f}" for when in WHEN]
                called = {"CLIPScore": "CLIPScore, student", "reward": "CLIPScore, reward"}
                rows.append([*cells, called.get(metric, metric), *values, gain(interval, scale)])
                cells = ["", ""]
            before, after = ([object_recall(record, when) for record in records] for when in WHEN)
            mean, low, high = paired_bootstrap(before, after)
            values = [f"{sum(recall) / len(recall):.1f}" for recall in (before, after)]
            rows.append([*cells, "things named, %", *values, gain({"mean": mean, "low": low, "high": high})])
    return markdown(["captioner", "style", "metric", "zero-shot", "RLCF", "gain, 95% interval"], rows)


TABLES = {
    "classification": ("Classification, top-1 in percent", classification_table),
    "retrieval": ("Retrieval, recall in percent", retrieval_table),
    "captioning": ("Captioning", captioning_table),
}
"""Task -> the table of its runs, from the folder that holds them."""
