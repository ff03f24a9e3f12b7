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

import torch
from PIL import Image, ImageDraw, ImageFont

from demo.report import object_recall, read_records, read_results
from rlcf.adapt.rewards import clip_score
from rlcf.clip.backbone import load_clip
from rlcf.errors import UserError
from rlcf.run.config import Parser
from rlcf.run.images import encode_images

GREEN, RED, GREY, BLUE = "#1a7f37", "#b42318", "#57606a", "#8ab4f8"


def choose_examples(folder: Path, count: int = 8) -> list[tuple[str, dict[str, Any]]]:
    """(style, record) of images that RLCF put right, in turn from every style, and last of two that it spoilt."""
    right, spoilt = [], []
    for style in read_results(folder / "rlcf-tune"):
        records = read_records(folder / "rlcf-tune" / style.replace(":", "-") / "records.jsonl")
        wrong_before = [r for r in records if r["zero_shot"] != r["label"] == r["adapted"]]
        wrong_after = [r for r in records if r["zero_shot"] == r["label"] != r["adapted"]]
        right += [(place, style, record) for place, record in enumerate(wrong_before)]
        spoilt += [(place, style, record) for place, record in enumerate(wrong_after)]
    in_turn = [sorted(group, key=lambda row: row[0]) for group in (right, spoilt)]
    return [(style, record) for _, style, record in [*in_turn[0][: count - 2], *in_turn[1][:2]]]


@torch.no_grad()
def classification_picture(folder: Path) -> Image.Image:
    """Cards: the image, the zero-shot and the adapted answer, and the reward of the three answers that were sampled."""
    examples = choose_examples(folder)
    columns, width, height = 4, 300, 400
    sheet = Image.new("RGB", (columns * width, -(-len(examples) // columns) * height), "white")
    reward = load_clip("demo-reward")
    for place, (style, record) in enumerate(examples):
        root = folder / "single" / style.removeprefix("folder:")
        names = (folder / "rlcf-tune" / style.replace(":", "-") / "classnames.txt").read_text().splitlines()
        answers = record["zero_shot_top5"][:3]
        texts = reward.encode_text([f"a photo of a {names[answer]}." for answer in answers])
        (image,) = encode_images([reward], [root / record["id"]], workers=0, desc=None)
        scores = clip_score(image, texts).tolist()
        card = _card(Image.open(root / record["id"]), style.removeprefix("folder:"), record, names, answers, scores)
        sheet.paste(card, (place % columns * width, place // columns * height))
    return sheet


def _card(
    image: Image.Image,
    style: str,
    record: dict[str, Any],
    names: Sequence[str],
    answers: Sequence[int],
    scores: Sequence[float],
) -> Image.Image:
    card = Image.new("RGB", (300, 400), "white")
    card.paste(image.convert("RGB").resize((192, 192), Image.Resampling.NEAREST), (54, 12))
    pen = ImageDraw.Draw(card)
    small, plain = ImageFont.load_default(14), ImageFont.load_default(17)
    pen.text((54, 208), f"{style}; it is: {names[record['label']]}", GREY, small)
    for y, key, when in ((230, "zero_shot", "zero-shot"), (253, "adapted", "RLCF")):
        colour = GREEN if record[key] == record["label"] else RED
        pen.text((54, y), f"{when}: {names[record[key]]} ({100 * record[f'{key}_confidence']:.0f}%)", colour, plain)
    pen.text((54, 286), "rewards of the three likeliest answers", GREY, small)
    for row, (answer, score) in enumerate(zip(answers, scores, strict=True)):
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
        records.sort(key=lambda record: -change[record["id"]])  # stable: the same pictures every time
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
    "rlcf-tune": ("classification.png", classification_picture),
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
