"""Changes by bf16 on the embedded world: answers, accuracy, and which views are learnt from.

Blurred pictures and pictures in fog of the test seed, adapted to with the demo's settings by classification/main.py: in
fp32, under bf16 autocast, and with the views screened in bf16 (--select-precision bf16).
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import check_writable, count
from classification import main as classification
from classification.classifier import Classifier
from classification.config import ClassificationConfig
from classification.datasets import load_dataset
from demo.world import TEST_SEED, write_classification
from rlcf.adapt.objectives import select_confident
from rlcf.clip.loading import load_clip
from rlcf.errors import run_main
from rlcf.run.config import command_line
from rlcf.run.dealing import shuffled
from rlcf.run.files import write_atomically
from rlcf.run.folder import versions
from rlcf.run.images import ImageLoader
from rlcf.run.parser import Parser
from rlcf.run.setup import Models

STYLES = ("blur", "fog")
DEMO = ["--student", "demo-student", "--reward", "demo-reward", "--views", "12", "--selection", "0.5", "--workers", "0"]
TUNES = {
    "image-encoder": ["--tune", "image-encoder", "--lr", "1e-4", "--batchnorm", "frozen"],
    "prompt": ["--tune", "prompt", "--lr", "7e-3"],
}
VARIANTS = {
    "fp32": ["--precision", "fp32"],
    "bf16 autocast": ["--precision", "bf16"],
    "fp32, views screened in bf16": ["--precision", "fp32", "--select-precision", "bf16"],
}


def answers(data: Path, output: Path, flags: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of all images, and the metrics of each style."""
    datasets = [f"folder:{style}" for style in STYLES]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        classification.main(["--data", str(data), "--datasets", *datasets, "--output", str(output), *DEMO, *flags])
    files = [output / f"folder-{style}" / "records.jsonl" for style in STYLES]
    records = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return records, json.loads((output / "results.json").read_text(encoding="utf-8"))["datasets"]


def compare_answers(data: Path, folder: Path, tune: str, limit: int) -> list[dict[str, Any]]:
    """A line a variant: how many answers are others than fp32's, and the accuracy, percent."""
    common = [*TUNES[tune], "--limit", str(limit)]
    runs = {name: answers(data, folder / f"{tune}-{name}", [*common, *flags]) for name, flags in VARIANTS.items()}
    exact, lines = runs["fp32"][0], []
    for name, (records, metrics) in runs.items():
        line = {"tune": tune, "variant": name, "n": len(records)}
        for key in ("adapted", "zero_shot"):
            line[f"{key}_changed"] = sum(a[key] != b[key] for a, b in zip(records, exact, strict=True))
            line |= {f"{style}_{key}": metrics[f"folder:{style}"][key]["top1"] for style in STYLES}
        lines.append(line)
    return lines


def compare_selection(data: Path, views: int, selection: float, limit: int) -> dict[str, Any]:
    """On how many images the views kept are fp32's: ranked in bf16 alone, and screened in bf16, then ranked in fp32."""
    config = ClassificationConfig(
        method="tpt", tune="image-encoder", batchnorm="frozen", views=views, selection=selection, steps=1
    )
    models = Models(load_clip("demo-student"), [])
    found = {"views": views, "kept": config.kept, "n": 0, "bf16_agrees": 0, "screened_agrees": 0}
    for style in STYLES:
        dataset = load_dataset(f"folder:{style}", str(data))
        exact, screened = (
            Classifier.of(replace(config, select_precision=precision), models, dataset.classnames)
            for precision in ("same", "bf16")
        )
        order = shuffled(len(dataset.files), 0, limit)
        for index, sample in ImageLoader(dataset.files, order, exact.views).one_by_one(0):
            kept, of_screened = (kept_views(classifier, index, sample) for classifier in (exact, screened))
            bf16 = select_confident(exact.policy.screen(sample[None], 0)[0], config.kept)
            found["n"] += 1
            found["bf16_agrees"] += set(kept) == set(bf16.tolist())
            found["screened_agrees"] += kept == of_screened
    return found


def kept_views(classifier: Classifier, index: int, views: Tensor) -> list[int] | None:
    """Numbers of the views that are learnt from, most confident first."""
    (outcome,) = classifier.adapt([(index, views)])
    return outcome.trace[0].views


def print_answers(lines: list[dict[str, Any]]) -> None:
    heads = ["tuned", "computed in", "n", "answers changed", "zero-shot changed", *(f"top-1 {s}" for s in STYLES)]
    rows = [heads]
    for line in lines:
        accuracy = [f"{line[f'{style}_zero_shot']:.1f} -> {line[f'{style}_adapted']:.1f}" for style in STYLES]
        counts = [str(line[key]) for key in ("n", "adapted_changed", "zero_shot_changed")]
        rows.append([line["tune"], line["variant"], *counts, *accuracy])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--limit", type=count, default=200, metavar="N", help="pictures of a style, at most 200")
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks/precision.json"), metavar="FILE")
    options = parser.parse_args(argv)
    check_writable(options.output)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "data"
        for style in STYLES:
            write_classification(data / style, style, 2, TEST_SEED)
        lines = [line for tune in TUNES for line in compare_answers(data, folder, tune, options.limit)]
        selections = [compare_selection(data, *some, options.limit) for some in ((12, 0.5), (64, 0.1))]
    print_answers(lines)
    for found in selections:
        print(
            f"of {found['views']} views the {found['kept']} kept are fp32's on {found['screened_agrees']} of "
            f"{found['n']} images when screened in bf16, on {found['bf16_agrees']} when ranked in bf16 alone"
        )
    content = {"command": command_line(), "versions": versions(), "answers": lines, "selection": selections}
    write_atomically(options.output, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
