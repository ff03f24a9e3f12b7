"""The demo's pictures: images with their answers before and after RLCF, and the rewards in between.

    python -m demo.pictures output/demo

draws output/demo/classification.png and captioning.png.
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.pictures")

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from demo.report import object_recall, read_records, read_results
from rlcf.errors import UserError
from rlcf.run.config import Parser

CARD = (300, 424)
"""Width and height of an image's card, pixels."""
GREEN, RED, GREY, BLUE = "#1a7f37", "#b42318", "#57606a", "#8ab4f8"


def choose_examples(folder: Path, count: int = 8) -> list[tuple[str, dict[str, Any]]]:
    """(style, record) of images that RLCF put right, in turn from every style, and last of two that it spoilt.

    No two are of one class.
    """
    right, spoilt = [], []
    for style in read_results(folder / "anchored"):
        records = read_records(folder / "anchored" / style.replace(":", "-") / "records.jsonl")
        wrong_before = [r for r in records if r["zero_shot"] != r["label"] == r["adapted"]]
        wrong_after = [r for r in records if r["zero_shot"] == r["label"] != r["adapted"]]
        right += [(place, style, record) for place, record in enumerate(wrong_before)]
        spoilt += [(place, style, record) for place, record in enumerate(wrong_after)]
    chosen: list[tuple[str, dict[str, Any]]] = []
    for group, end in ((right, count - 2), (spoilt, count)):
        for _, style, record in sorted(group, key=lambda row: row[0]):
            if len(chosen) < end and record["label"] not in {other["label"] for _, other in chosen}:
                chosen.append((style, record))
    return chosen


def classification_picture(folder: Path) -> Image.Image:
    """Cards: the image, the zero-shot and the adapted answer, and the best rewards of the answers that were sampled."""
    examples = choose_examples(folder)
    columns, (width, height) = 4, CARD
    sheet = Image.new("RGB", (columns * width, -(-len(examples) // columns) * height), "white")
    for place, (style, record) in enumerate(examples):
        names = (
            (folder / "anchored" / style.replace(":", "-") / "classnames.txt").read_text(encoding="utf-8").splitlines()
        )
        image = Image.open(folder / "single" / style.removeprefix("folder:") / record["id"])
        card = _card(image, style.removeprefix("folder:"), record, names)
        sheet.paste(card, (place % columns * width, place // columns * height))
    return sheet


def _card(image: Image.Image, style: str, record: dict[str, Any], names: Sequence[str]) -> Image.Image:
    card = Image.new("RGB", CARD, "white")
    card.paste(image.convert("RGB").resize((192, 192), Image.Resampling.NEAREST), (54, 12))
    pen = ImageDraw.Draw(card)
    small, plain = ImageFont.load_default(14), ImageFont.load_default(17)
    pen.text((54, 208), f"{style}; it is: {names[record['label']]}", GREY, small)
    for y, key, when in ((230, "zero_shot", "zero-shot"), (253, "adapted", "RLCF")):
        colour = GREEN if record[key] == record["label"] else RED
        pen.text((54, y), f"{when}: {names[record[key]]} ({100 * record[f'{key}_confidence']:.0f}%)", colour, plain)
    pen.text((54, 286), "rewards of the sampled answers", GREY, small)
    step = record["steps"][0]  # its first view is the centre crop
    sampled = zip(step["answers"][0], step["rewards"][0], strict=True)
    best = sorted(((score, answer) for answer, score in sampled if score is not None), reverse=True)[:4]
    for row, (score, answer) in enumerate(best):
        y = 308 + 24 * row
        pen.rectangle((150, y + 2, 150 + 50 * score, y + 16), BLUE)
        pen.text((54, y), names[answer], "black", small)
        pen.text((154 + 50 * score, y), f"{score:.2f}", "black", small)
    return card


def choose_captions(folder: Path, count: int = 4) -> list[tuple[str, dict[str, Any]]]:
    """(style, record) of ClipCap's scenes: in turn from every style one that gained most things, and one that lost."""
    gained, lost = [], []
    for style in read_results(folder / "clipcap"):
        records = read_records(folder / "clipcap" / style.replace(":", "-") / "records.jsonl")
        change = {r["id"]: object_recall(r, "adapted") - object_recall(r, "zero_shot") for r in records}
        # Stable: the same pictures every time.
        records.sort(key=lambda record: (-change[record["id"]], -object_recall(record, "adapted")))
        gained += [(place, style, record) for place, record in enumerate(records)]
        lost += [(style, record) for record in records if change[record["id"]] < 0]
    best = sorted(gained, key=lambda row: row[0])[: count - 1]
    return [*((style, record) for _, style, record in best), *lost[:1]]


def captioning_picture(folder: Path) -> Image.Image:
    """Cards: the scene, what it shows, its caption before and after, and the reward of both.

    A caption is green where it names both things.
    """
    examples = choose_captions(folder)
    sheet = Image.new("RGB", (len(examples) * 300, 430), "white")
    pen = ImageDraw.Draw(sheet)
    small, plain = ImageFont.load_default(14), ImageFont.load_default(16)
    for place, (style, record) in enumerate(examples):
        x = place * 300 + 20
        scene = Image.open(folder / "scenes" / record["id"]).convert("RGB")
        sheet.paste(scene.resize((192, 192), Image.Resampling.NEAREST), (x, 12))
        blocks = [(f"{style.removeprefix('json:')}; it is: {record['references'][0]}", GREY, small)]
        for when, called in (("zero_shot", "zero-shot"), ("adapted", "RLCF")):
            colour = GREEN if object_recall(record, when) == 100 else RED
            blocks.append((f"{called}: {record[when]} (reward {record[f'{when}_reward']:.2f})", colour, plain))
        y = 214
        for text, colour, font in blocks:
            lines = "\n".join(textwrap.wrap(text, 32))
            pen.multiline_text((x, y), lines, colour, font, spacing=3)
            y = int(pen.multiline_textbbox((x, y), lines, font, spacing=3)[3]) + 10
    return sheet


PICTURES = {
    "anchored": ("classification.png", classification_picture),
    "clipcap": ("captioning.png", captioning_picture),
}
"""A run that was made -> the picture of it."""


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = [picture for run, picture in PICTURES.items() if (folder / run).exists()]
    if not found:
        raise UserError(f"{folder} holds no run of the demo; scripts/demo.sh makes them")
    for name, draw in found:
        draw(folder).save(folder / name)
        print(f"picture: {folder / name}")
