"""What the commands beside the tasks read: published files to convert, and run folders to report of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlcf.data.main
import rlcf.report.main
from rlcf.errors import UserError
from rlcf.report import figures, numbers
from rlcf.run.identity import IDENTITY_FILE, read_identity
from rlcf.run.record_lines import checksum
from rlcf.terminal import visible
from tests import records
from tests.fuzz.files import Tree, read_tree
from tests.fuzz.reader import Reader
from tests.fuzz.readers.lists import COCO, KARPATHY, NOCAPS, RESULTS, as_json, pictures

# ---- conversions ----

CONVERTED = {"nocaps": NOCAPS, "karpathy": KARPATHY, "coco-results": RESULTS}
VALIDATION = [f"ILSVRC2012_val_0000000{number}.JPEG" for number in (1, 2)]


def conversion_seeds(folder: Path) -> dict[str, Tree]:
    seeds: dict[str, Tree] = {name: {"given.json": as_json(held)} for name, held in CONVERTED.items()}
    seeds["coco-results"] |= {"list.json": as_json(COCO)}
    images = {f"flat/{name}": content for name, content in pictures(*VALIDATION).items()}
    ids = ["n01751748", "n09193705"]
    rows = [f"{Path(image).stem},{wnid} 1 2 3 4" for image, wnid in zip(VALIDATION, ids, strict=True)]
    seeds["solution"] = {"labels.csv": "\n".join(["ImageId,PredictionString", *rows, ""]).encode(), **images}
    lines = [f"{image} {number}" for number, image in enumerate(VALIDATION)]
    seeds["numbers"] = {"labels.txt": "\n".join([*lines, ""]).encode(), **images}
    return seeds


def convert(folder: Path, seed: str, beside: Path) -> None:
    labels = {"solution": "labels.csv", "numbers": "labels.txt"}.get(seed)
    if labels is None:
        argv = [seed, folder / "given.json", "--output", folder / "out"]
        argv += ["--list", folder / "list.json"] if seed == "coco-results" else []
    else:
        argv = ["imagenet-val", folder / "flat", "--labels", folder / labels, "--output", folder / "out"]
    rlcf.data.main.main(["convert", *map(str, argv)])


# ---- reports ----


def report_seeds(folder: Path) -> dict[str, Tree]:
    scores = {f"{number}.png": {"CIDEr": 0.1 * number, "CLIPScore": 0.5} for number in range(4)}
    each = as_json(scores)
    of_captions = {f"run/json-x/{name}": each for name in ("each-scores.json", "each-scores-zero-shot.json")}
    classified = [records.classified(i, i % 3, 0, i % 2) for i in range(4)]
    runs: dict[str, tuple[str, list[dict[str, Any]], bool]] = {
        "classification": (
            "folder:x",
            [records.classified(i, i % 3, 0, i % 2) for i in range(4)]
            + [records.unreadable(4, label=0, label_name="cat")],
            True,
        ),
        "retrieval": ("json:x-t2i", [records.retrieved(i, (1 + i % 2, 1)) for i in range(4)], True),
        "captioning": ("json:x", [records.captioned(i, "a dog", f"a cat {i}", (0.5, 0.6)) for i in range(4)], True),
        "stopped": ("folder:x", classified, False),
    }
    seeds: dict[str, Tree] = {}
    for name, (dataset, held, finished) in runs.items():
        task = name if name in records.CONFIGS else "classification"
        made = records.write_run(folder / name, {dataset: held}, task=task, finished=finished)
        seeds[name] = {f"run/{file}": content for file, content in read_tree(made).items()}
    seeds["captioning"] |= of_captions
    return seeds


def sign(folder: Path) -> None:
    """Give the records of a dataset's folder checksums that fit, as one who wants them to be read would do."""
    for file in folder.glob("records*.jsonl"):
        if not all(held.is_file() for held in (file, folder / IDENTITY_FILE)):
            continue
        try:
            key, lines = read_identity(folder).key, file.read_bytes().split(b"\n")
        except (UserError, OSError):
            continue
        file.with_suffix(".sums").write_bytes(b"".join(checksum(key, line, b"") for line in lines[:-1]))


def painted(paint: Callable[[Axes], None], *_: object) -> str:
    """A figure without its SVG, which takes long."""
    paint(Figure().add_subplot())
    return ""


def report(folder: Path, seed: str, beside: Path) -> None:
    for place in (folder / "run").iterdir():
        if place.is_dir():
            sign(place)
    forms = [word for form in ("csv", "markdown", "latex") for word in (f"--{form}", folder / f"table.{form}")]
    with patch.object(figures, "draw", painted), patch.object(numbers, "RESAMPLES", 20):
        rlcf.report.main.main([*map(str, [folder / "run", "--output", folder / "page.html", *forms])])
    for file in ("page.html", "table.csv", "table.markdown", "table.latex"):
        text = (folder / file).read_text(encoding="utf-8")
        assert visible(text, kept="\n\r\t") == text, f"{file} holds a control character"


TOOLS = [
    Reader("conversions", conversion_seeds, convert, 8, ("*.json", "*.csv", "*.txt"), command=True),
    Reader("reports", report_seeds, report, 8, ("*.json", "*.jsonl", "*.yaml"), command=True),
]
