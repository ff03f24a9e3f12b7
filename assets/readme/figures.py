"""Draw the README's figures of the method: one episode in each task, with the numbers of a run of the embedded world.

    .venv/bin/python assets/readme/figures.py

writes assets/readme/method-classification.svg, method-retrieval.svg and method-captioning.svg. An episode's picture is
one of the validation seed that the student gets wrong at first.
"""

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from caption import Captioner
from classification import Classifier
from demo.art import NAMES
from demo.scenes import scene_captions
from demo.world import VALIDATION_SEED, classification_images, scene_images
from retrieval import Retriever

FOLDER = Path(__file__).resolve().parent
MODELS: dict[str, Any] = {"student": "demo-student", "reward": ["demo-reward"], "device": "cpu"}
INK, MUTED, TUNED, FROZEN, GOOD, BAD = "#1f2328", "#59636e", "#fff3d6", "#e6f0fb", "#1a7f37", "#b42318"


@dataclass
class Episode:
    """The episode of a figure.

    answers, rewards, advantages: of the first step; tuned: what of the student learns; before, after: its answers.
    """

    title: str
    picture: Image.Image
    query: str
    tuned: str
    candidates: str
    answers: list[str]
    rewards: list[float]
    advantages: list[float]
    before: str
    after: str


def draw(episode: Episode, file: Path) -> None:
    """Draw an episode from left to right: the image, the student, its candidates, rewards, advantages."""
    rows = len(episode.answers)
    figure = Figure(figsize=(11, 3.6))
    axes: Any = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 110), ylim=(0, 36))
    axes.axis("off")
    axes.text(2, 33.4, episode.title, size=12, weight="bold", color=INK, va="center")
    axes.imshow(episode.picture, extent=(2, 16, 12, 26), interpolation="nearest", aspect="auto", zorder=2)
    axes.set(xlim=(0, 110), ylim=(0, 36))
    axes.text(9, 10, episode.query, size=8.5, color=MUTED, ha="center", va="top")
    _box(axes, 21, 13, 14, 12, f"student\n\n{episode.tuned}", TUNED)
    _arrow(axes, (16.5, 19), (20.5, 19))
    _arrow(axes, (35.5, 19), (38.8, 19))
    axes.text(39.5, 29.2, episode.candidates, size=9, color=MUTED, va="center")
    axes.text(83, 29.2, "reward", size=9, color=MUTED, va="center", ha="center")
    axes.text(98, 29.2, "advantage", size=9, color=MUTED, va="center", ha="center")
    mean = sum(episode.rewards) / rows
    widest = max(map(abs, episode.advantages)) or 1.0
    for row, (text, reward, advantage) in enumerate(
        zip(episode.answers, episode.rewards, episode.advantages, strict=True)
    ):
        y = 25.5 - row * 13.5 / max(rows - 1, 1)
        axes.text(39.5, y, textwrap.fill(text, 38), size=9 if len(text) > 38 else 9.5, color=INK, va="center")
        axes.text(83, y, f"{reward:.2f}", size=9.5, color=INK, va="center", ha="center")
        colour = GOOD if advantage > 0 else BAD
        axes.barh(y, 6 * advantage / widest, left=103, height=1.7, color=colour, alpha=0.35, zorder=1)
        axes.text(93.5, y, f"{advantage:+.2f}", size=9.5, color=colour, va="center", ha="center")
    _box(axes, 68, 13, 9.5, 12, "reward\nmodel\n\nfrozen CLIP", FROZEN)
    _arrow(axes, (64.8, 19), (67.5, 19))
    _arrow(axes, (78, 19), (80.5, 19))
    _arrow(axes, (86, 19), (89.5, 19))
    axes.text(87, 9.2, f"− baseline {mean:.2f}", size=8.5, color=MUTED, ha="center", va="center")
    bent = {"arrowstyle": "-|>", "mutation_scale": 13, "color": INK, "lw": 1.3}
    axes.plot([97, 97, 28, 28], [10.5, 5.6, 5.6, 9], color=INK, lw=1.3, solid_joinstyle="round")
    axes.add_patch(FancyArrowPatch((28, 8.5), (28, 12.6), **bent))
    axes.text(
        62,
        6.7,
        "policy gradient: answers above the baseline become likelier; a few steps",
        size=9,
        color=INK,
        ha="center",
    )
    axes.text(2, 3.4, f"before: {episode.before}", size=10, color=BAD, va="center")
    axes.text(2, 1.3, f"after the episode: {episode.after}", size=10, color=GOOD, va="center")
    figure.savefig(file, facecolor="white", metadata={"Date": None})


def _box(axes: Any, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.2,rounding_size=1", fc=colour, ec=INK, lw=1)
    )
    axes.text(x + width / 2, y + height / 2, text, size=9, color=INK, ha="center", va="center")


def _arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=13, color=INK, lw=1.3))


def first_view(trace: list[Any]) -> tuple[list[Any], list[float], list[float]]:
    """Answers, rewards and advantages of the first view in the first step, the best reward first."""
    step = trace[0].as_record()
    rows = sorted(
        zip(step["rewards"][0], step["answers"][0], step["advantages"][0], strict=True), key=lambda row: -row[0]
    )
    return [row[1] for row in rows], [row[0] for row in rows], [row[2] for row in rows]


def classification() -> Episode:
    """The first foggy picture that the student gets wrong and the adapted student right."""
    classifier = Classifier(
        list(NAMES), **MODELS, tune="image-encoder", lr=1e-4, steps=3, sample_k=4, views=12, selection=0.5
    )
    for pixels, label in zip(*classification_images("fog", 1, VALIDATION_SEED), strict=True):
        picture = to_pil_image(pixels)
        answer = classifier(picture)
        answers, rewards, advantages = first_view(answer.trace)
        if answer.zero_shot_label != NAMES[label] == answer.label and int(label) == answers[0]:
            return Episode(
                "Image classification",
                picture,
                "a picture, and views of it",
                "prompt or\nimage encoder",
                "the K likeliest classes",
                [f"a photo of a {NAMES[place]}." for place in answers],
                rewards,
                advantages,
                f"“{answer.zero_shot_label}”",
                f"“{answer.label}”",
            )
    raise SystemExit("no picture was put right")


def retrieval() -> Episode:
    """The first blurred scene whose caption the student does not find at first, among those of forty scenes."""
    pictures, scenes = scene_images("blur", 40, VALIDATION_SEED)
    texts = [scene_captions(scene)[0] for scene in scenes]
    retriever = Retriever(texts=texts, **MODELS, lr=1e-4, steps=5, sample_k=5)
    for place, pixels in enumerate(pictures):
        picture = to_pil_image(pixels)
        answer = retriever(picture)
        before, after = answer.zero_shot_ranking[0], answer.ranking[0]
        if before != place == after and place in first_view(answer.trace)[0]:
            answers, rewards, advantages = first_view(answer.trace)
            return Episode(
                "Image-text retrieval",
                picture,
                "the query",
                "image encoder;\ntext encoder for\ntext to image",
                "the K best texts of the gallery",
                [texts[number] for number in answers],
                rewards,
                advantages,
                texts[before],
                texts[after],
            )
    raise SystemExit("no query was put right")


def captioning() -> Episode:
    """The first scene whose caption names both things after the episode and not before."""
    pictures, scenes = scene_images("clean", 60, VALIDATION_SEED)
    captioner = Captioner(
        checkpoint="demo-clipcap", language_model="demo-lm", **MODELS, steps=4, lr=1e-4, sample_k=5, weight_decay=0.0
    )
    for number, (pixels, scene) in enumerate(zip(pictures, scenes, strict=True)):
        picture = to_pil_image(pixels)
        answer = captioner(picture, number)
        names = {NAMES[scene.first], NAMES[scene.second]}
        if names <= set(answer.adapted.split()) and not names <= set(answer.zero_shot.split()):
            answers, rewards, advantages = first_view(answer.trace)
            return Episode(
                "Image captioning",
                picture,
                "a picture",
                "mapper from CLIP\nto a frozen\nlanguage model",
                "K captions of beam search",
                answers,
                rewards,
                advantages,
                answer.zero_shot,
                answer.adapted,
            )
    raise SystemExit("no caption was put right")


def main() -> None:
    rcParams["svg.hashsalt"] = "rlcf"  # equal files from equal numbers
    rcParams["font.family"] = "DejaVu Sans"
    for name, episode in (("classification", classification), ("retrieval", retrieval), ("captioning", captioning)):
        file = FOLDER / f"method-{name}.svg"
        draw(episode(), file)
        print(file)


if __name__ == "__main__":
    main()
