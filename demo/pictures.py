"""The demo's pictures: images with their answers before and after RLCF, and the rewards in between."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from demo.report import object_recall
from demo.runs import read_records, read_results

WIDTH, MARGIN, PICTURE = 320, 20, 192
"""Of a card, and of the picture on it, pixels."""
GREEN, RED, GREY, BLACK = "#1a7f37", "#b42318", "#57606a", "#1f2328"
BAR, BEST_BAR = "#b6d0f7", "#2f6fd0"
SMALL, PLAIN = 14, 17
"""Heights of letters, pixels."""
UNIT = "CLIPScore by the reward model, 0 to 2.5"
Example = tuple[str, dict[str, Any]]
"""A style, and the record of an image of it."""


def choose_examples(run: Path, count: int = 8) -> list[Example]:
    """Images that RLCF put right, in turn from every style, and last two that it spoilt. No two are of one class.

    Where it spoilt fewer, there are more that it put right.
    """
    right, spoilt = [], []
    for style in read_results(run):
        records = read_records(run, style)
        wrong_before = [r for r in records if r["zero_shot"] != r["label"] == r["adapted"]]
        wrong_after = [r for r in records if r["zero_shot"] == r["label"] != r["adapted"]]
        right += [(place, style, record) for place, record in enumerate(wrong_before)]
        spoilt += [(place, style, record) for place, record in enumerate(wrong_after)]
    seen: set[int] = set()

    def take(group: list[tuple[int, str, dict[str, Any]]], most: int) -> list[Example]:
        taken: list[Example] = []
        for _, style, record in sorted(group, key=lambda row: row[0]):
            if len(taken) < most and record["label"] not in seen:
                seen.add(record["label"])
                taken.append((style, record))
        return taken

    last = take(spoilt, 2)
    return take(right, count - len(last)) + last


def classification_picture(folder: Path) -> Image.Image:
    """Cards: the image, both answers, right or wrong, and the best rewards of the answers that were sampled."""
    run, cards = folder / "classification" / "anchored-mean", []
    for style, record in choose_examples(run):
        file = run / style.replace(":", "-") / "classnames.txt"
        names = file.read_text(encoding="utf-8").splitlines()
        style = style.removeprefix("folder:")
        cards.append(_answers_card(_picture(folder / "single" / style / record["id"]), style, record, names))
    note = (
        f"Bars: rewards of the answers that were sampled on the centre crop ({UNIT}). Black arrow: the answer that won."
    )
    note += " RLCF: RLCF anchored."
    return _sheet(cards, columns=4, note=note)


def _answers_card(picture: Image.Image, style: str, record: dict[str, Any], names: Sequence[str]) -> Image.Image:
    card, pen = _blank(picture, 404)
    y = _write(pen, 212, f"{style}: {names[record['label']]}", GREY, SMALL) + 2
    for key, when in (("zero_shot", "zero-shot"), ("adapted", "RLCF")):
        text = f"{when}: {names[record[key]]} ({100 * record[f'{key}_confidence']:.0f}%)"
        y = _judged(pen, y, text, record[key] == record["label"])
    y += 8
    for score, answer in _best_rewards(record):
        won = answer == record["adapted"]
        if won:
            pen.polygon([(MARGIN, y + 4), (MARGIN, y + 14), (MARGIN + 8, y + 9)], BLACK)
        pen.text((MARGIN + 14, y), _cut(names[answer], SMALL, 96), BLACK, ImageFont.load_default(SMALL))
        end = MARGIN + 116 + 60 * score
        pen.rectangle((MARGIN + 116, y + 2, end, y + 16), BEST_BAR if won else BAR)
        pen.text((end + 6, y), f"{score:.2f}", BLACK, ImageFont.load_default(SMALL))
        y += 24
    return card


def _best_rewards(record: dict[str, Any], count: int = 4) -> list[tuple[float, int]]:
    """(reward, class) of the best answers that were sampled on the centre crop; the answer that won is among them."""
    step = record["steps"][0]  # its first view is the centre crop
    sampled = zip(step["answers"][0], step["rewards"][0], strict=True)
    best = sorted(((score, answer) for answer, score in sampled if score is not None), reverse=True)
    won = [row for row in best if row[1] == record["adapted"] and row not in best[:count]]
    return best[: count - len(won)] + won


def choose_captions(run: Path, count: int = 4) -> list[Example]:
    """ClipCap's scenes: in turn from every style one that gained most things, and last one that lost."""
    gained, lost = [], []
    for style in read_results(run):
        records = read_records(run, style)
        change = {r["id"]: object_recall(r, "adapted") - object_recall(r, "zero_shot") for r in records}
        # Stable: the same pictures every time.
        records.sort(key=lambda record: (-change[record["id"]], -object_recall(record, "adapted")))
        gained += [(place, style, record) for place, record in enumerate(records)]
        lost += [(style, record) for record in records if change[record["id"]] < 0]
    best = sorted(gained, key=lambda row: row[0])[: count - 1]
    return [*((style, record) for _, style, record in best), *lost[:1]]


def captioning_picture(folder: Path) -> Image.Image:
    """Cards: the scene, what it shows, its caption before and after, right or wrong, and the reward of both."""
    cards = []
    for style, record in choose_captions(folder / "captioning" / "clipcap"):
        card, pen = _blank(_picture(folder / "scenes" / record["id"]), 452)
        y = _write(pen, 212, f"{style.removeprefix('json:')}: {record['references'][0]}", GREY, SMALL) + 6
        rewards = {when: record[f"{when}_reward"] for when in ("zero_shot", "adapted")}
        for when, called in (("zero_shot", "zero-shot"), ("adapted", "RLCF")):
            y = _judged(pen, y, f"{called}: {record[when]}", object_recall(record, when) == 100)
            if rewards[when] == max(rewards.values()):
                pen.polygon([(MARGIN, y + 4), (MARGIN, y + 14), (MARGIN + 8, y + 9)], BLACK)
            y = _write(pen, y, f"reward {rewards[when]:.2f}", BLACK, SMALL, indent=24) + 8
        cards.append(card)
    note = f"Tick: the caption names both things. Reward: {UNIT}. Black arrow: the better rewarded caption."
    return _sheet(cards, columns=4, note=note)


def _picture(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.NEAREST)


def _blank(picture: Image.Image, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A card with its picture."""
    card = Image.new("RGB", (WIDTH, height), "white")
    card.paste(picture, (MARGIN, 12))
    return card, ImageDraw.Draw(card)


def _judged(pen: ImageDraw.ImageDraw, y: int, text: str, right: bool) -> int:
    """Write a text behind a tick or a cross. Returns where the next line begins."""
    colour = GREEN if right else RED
    x = MARGIN
    if right:
        pen.line([(x, y + 10), (x + 5, y + 15), (x + 14, y + 4)], colour, 3)
    else:
        pen.line([(x + 1, y + 4), (x + 12, y + 15)], colour, 3)
        pen.line([(x + 1, y + 15), (x + 12, y + 4)], colour, 3)
    return _write(pen, y, text, colour, PLAIN, indent=24)


def _write(pen: ImageDraw.ImageDraw, y: int, text: str, colour: str, size: int, indent: int = 0) -> int:
    """Write a text into the card's width, in as few lines as it takes. Returns where the next line begins."""
    font = ImageFont.load_default(size)
    for line in balanced(text, font, WIDTH - 2 * MARGIN - indent):
        pen.text((MARGIN + indent, y), line, colour, font)
        y += size + 5
    return y


def balanced(text: str, font: Any, width: float) -> list[str]:
    """A text as lines of about the same length: as few as fit into `width` pixels, each as short as that allows."""
    fewest = lines = _lines(text, font, width)
    while len(lines) == len(fewest) > 1:
        fewest = lines
        lines = _lines(text, font, max(font.getlength(line) for line in lines) - 1)
        if max(font.getlength(line) for line in lines) >= max(font.getlength(line) for line in fewest):
            break
    return fewest


def _lines(text: str, font: Any, width: float) -> list[str]:
    """A text as lines, each as long as `width` pixels allow; a word that is longer has a line of its own."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, size: int, width: float) -> str:
    """A text that is cut where it is longer than `width` pixels."""
    font = ImageFont.load_default(size)
    if font.getlength(text) <= width:
        return text
    while font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."


def _sheet(cards: Sequence[Image.Image], columns: int, note: str) -> Image.Image:
    """Cards in rows, and a note below them."""
    font, height = ImageFont.load_default(SMALL), max(card.height for card in cards)
    rows, used = -(-len(cards) // columns), min(columns, len(cards))
    lines = balanced(note, font, used * WIDTH - 2 * MARGIN)
    sheet = Image.new("RGB", (used * WIDTH, rows * height + 20 * len(lines) + 8), "white")
    for place, card in enumerate(cards):
        sheet.paste(card, (place % columns * WIDTH, place // columns * height))
    ImageDraw.Draw(sheet).text((MARGIN, rows * height), "\n".join(lines), GREY, font)
    return sheet


PICTURES = {"classification": classification_picture, "captioning": captioning_picture}
"""Task -> its picture, from the demo's folder. Retrieval has none."""
