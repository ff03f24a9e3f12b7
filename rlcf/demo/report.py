"""The demo's tables, from the results of its runs, and its picture of images before and after.

    python -m rlcf.demo.report output/demo

prints the tables and writes them to output/demo/results.md, the picture to output/demo/classification.png.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont

from rlcf.backbone import load_clip
from rlcf.images import encode_images
from rlcf.reward import clip_score
from rlcf.runs import write_atomically

CLASSIFICATION = {
    "tpt-prompt": "TPT, prompt",
    "kd-tune": "KD, image encoder",
    "rlcf-prompt": "RLCF, prompt",
    "rlcf-tune": "RLCF, image encoder",
}
"""Run folder -> the method's name in the table."""


def read_results(run: Path) -> dict[str, Any]:
    """Dataset -> its metrics."""
    return json.loads((run / "results.json").read_text())["datasets"]


def read_records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that reads well as text too. A row may be shorter than the header."""
    cells = [list(row) + [""] * (len(header) - len(row)) for row in [header, *rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def gain(interval: dict[str, float]) -> str:
    """
    >>> gain({"mean": 12.5, "low": 8.0, "high": 17.25})
    '+12.5 (+8.0 to +17.2)'
    """
    return f"{interval['mean']:+.1f} ({interval['low']:+.1f} to {interval['high']:+.1f})"


def classification_table(folder: Path) -> str:
    """Top-1 per style: the student, each method, the reward model alone."""
    runs = {name: read_results(folder / name) for name in (*CLASSIFICATION, "reward-alone")}
    rows = []
    for style, alone in runs["reward-alone"].items():
        before = runs["rlcf-tune"][style]
        rows.append(
            [f"{style.removeprefix('folder:')} (n {before['n']})", "zero-shot", f"{before['zero_shot']['top1']:.1f}"]
        )
        for run, method in CLASSIFICATION.items():
            result = runs[run][style]
            seconds = f"{result['seconds_per_sample']:.2f}"
            rows.append(["", method, f"{result['adapted']['top1']:.1f}", gain(result["top1_gain"]), seconds])
        rows.append(["", "reward model alone", f"{alone['zero_shot']['top1']:.1f}"])
    return markdown(["style", "method", "top-1 %", "gain, 95% interval", "s an image"], rows)


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
def picture(folder: Path, data: Path) -> Image.Image:
    """Cards: the image, the zero-shot and the adapted answer, and the reward of the three answers that were sampled."""
    examples = choose_examples(folder)
    columns, width, height = 4, 300, 400
    sheet = Image.new("RGB", (columns * width, -(-len(examples) // columns) * height), "white")
    reward = load_clip("demo-reward")
    for place, (style, record) in enumerate(examples):
        root = data / style.removeprefix("folder:")
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
    green, red, grey = "#1a7f37", "#b42318", "#57606a"
    card = Image.new("RGB", (300, 400), "white")
    card.paste(image.convert("RGB").resize((192, 192), Image.Resampling.NEAREST), (54, 12))
    pen = ImageDraw.Draw(card)
    small, plain = ImageFont.load_default(14), ImageFont.load_default(17)
    pen.text((54, 208), f"{style}; it is: {names[record['label']]}", grey, small)
    for y, key, when in ((230, "zero_shot", "zero-shot"), (253, "adapted", "RLCF")):
        colour = green if record[key] == record["label"] else red
        pen.text((54, y), f"{when}: {names[record[key]]} ({100 * record[f'{key}_confidence']:.0f}%)", colour, plain)
    pen.text((54, 286), "rewards of the three likeliest answers", grey, small)
    for row, (answer, score) in enumerate(zip(answers, scores, strict=True)):
        y = 308 + 24 * row
        pen.rectangle((150, y + 2, 150 + 50 * score, y + 16), "#8ab4f8")
        pen.text((54, y), names[answer], "black", small)
        pen.text((154 + 50 * score, y), f"{score:.2f}", "black", small)
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    tables = f"## Classification, top-1 in percent\n\n{classification_table(folder)}\n"
    print(tables)
    write_atomically(folder / "results.md", tables)
    picture(folder, folder / "data").save(folder / "classification.png")
    print(f"picture: {folder / 'classification.png'}, tables: {folder / 'results.md'}")


if __name__ == "__main__":
    main()
