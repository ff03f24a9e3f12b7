"""Steps and processor time that --stop-when-settled saves on the embedded world, and the answers that it changes.

Pictures of the validation seed are adapted to one at a time, with the demo's views and lr 1e-4: by RLCF, by RLCF with
the learning rate that is published for larger models, and by RLCF anchored. Each episode takes all its steps once.
After each step it answers, and the rule of each bound tells whether it would have ended there: so all bounds are
compared on the same steps. Processor time is this process's, without the further answers.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import check_writable, count
from classification.classifier import Classifier
from classification.config import ClassificationConfig
from classification.datasets import load_dataset
from demo.world import VALIDATION_SEED, write_classification
from rlcf.adapt.objectives import Step
from rlcf.adapt.settled import Settling
from rlcf.clip.loading import load_clip
from rlcf.errors import run_main
from rlcf.progress import progress_bar
from rlcf.run.config import command_line, make_config
from rlcf.run.dealing import shuffled
from rlcf.run.files import write_atomically
from rlcf.run.folder import versions
from rlcf.run.images import ImageLoader
from rlcf.run.parser import Parser
from rlcf.run.setup import Models

STYLES = ("clean", "blur", "pixelate", "fog", "clutter", "noto")
BOUNDS = (0.2, 0.4, 0.8, 2.5)
"""Of the advantages; no CLIPScore, and so no advantage, reaches above the last one."""
DEMO = {"views": 12, "selection": 0.5, "tune": "image-encoder", "lr": 1e-4, "batchnorm": "frozen"}
SETTINGS: dict[str, dict[str, Any]] = {
    "RLCF": {"steps": 3},
    "RLCF, published rate": {"steps": 3, "lr": 1e-5},
    "RLCF anchored": {"steps": 5, "candidates": "both", "learn_from_centre": True, "kl_weight": 0.1},
}


@dataclass(frozen=True)
class Watched:
    """One image's episode. answers: the class after each of its S steps; seconds: of the processor, of an episode that
    ends there; ended: the number of steps after which each bound ends it."""

    answers: list[int]
    seconds: list[float]
    ended: list[int]


class Watch(Settling):
    """Ends no episode, and takes note of what each bound would do, of the time and of the answer after each step."""

    def __init__(self, answer: Any, bounds: Sequence[float], steps: int) -> None:
        super().__init__(0.0, steps, own=lambda sample: [])
        self.answer, self.rules = answer, [Settling(bound, steps, self.own) for bound in bounds]
        self.answers: list[int] = []
        self.seconds: list[float] = []
        self.spent = 0.0  # on the answers

    def see(self, likeliest: Tensor, step: Step) -> None:
        for rule in self.rules:
            rule.see(likeliest, step)

    def over(self) -> bool:
        stopped = time.process_time()
        self.seconds.append(stopped - self.spent)
        for rule in self.rules:
            rule.after[0] is None and rule.over()
        self.answers.append(int(self.answer().argmax()))
        self.spent += time.process_time() - stopped
        return False


def watch(classifier: Classifier, index: int, views: Tensor, bounds: Sequence[float]) -> tuple[Watched, int]:
    """An image's episode, and its class before it. views: (V, 3, H, W)."""
    steps = classifier.config.steps
    centre = classifier.policy.encode(views[None, :1])
    noted = Watch(lambda: classifier.policy.answer(centre)[0, 0], bounds, steps)
    started = time.process_time()
    with patch("classification.classifier.Settling", lambda *_: noted):
        (outcome,) = classifier.adapt([(index, views)])
    last = time.process_time() - noted.seconds[-1] - noted.spent  # the answer, after the last step
    answers = [*noted.answers[:-1], int(outcome.answer.argmax())]
    seconds = [moment - started + last for moment in noted.seconds]
    ended = [rule.after[0] or steps for rule in noted.rules]
    return Watched(answers, seconds, ended), int(outcome.before.argmax())


def compare(data: Path, styles: Sequence[str], limit: int, bounds: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yields a line for each style, each of `SETTINGS` and each bound."""
    models = Models(load_clip("demo-student"), [load_clip("demo-reward")])
    work = [(style, name) for style in styles for name in SETTINGS]
    for style, name in progress_bar(work, desc="settled", total=len(work)):
        dataset = load_dataset(f"folder:{style}", str(data))
        classifier = Classifier.of(make_config(ClassificationConfig, DEMO | SETTINGS[name]), models, dataset.classnames)
        order = shuffled(len(dataset.files), 0, limit)
        labels, before, found = [], [], list[Watched]()
        for index, views in ImageLoader(dataset.files, order, classifier.views).one_by_one(0):
            watched, zero_shot = watch(classifier, index, views, bounds)
            labels.append(dataset.samples[index][1])
            before.append(zero_shot)
            found.append(watched)
        steps = classifier.config.steps
        for place, bound in enumerate((0.0, *bounds)):
            ended = [one.ended[place - 1] if place else steps for one in found]
            answers = [one.answers[end - 1] for one, end in zip(found, ended, strict=True)]
            yield {
                "method": name,
                "style": style,
                "bound": bound,
                "n": len(found),
                "settled": sum(end < steps for end in ended),
                "steps": sum(ended),
                "seconds": sum(one.seconds[end - 1] for one, end in zip(found, ended, strict=True)),
                "changed": sum(one.answers[-1] != answer for one, answer in zip(found, answers, strict=True)),
                "right": sum(map(int.__eq__, answers, labels)),
                "right_zero_shot": sum(map(int.__eq__, before, labels)),
            }


def table(lines: Sequence[dict[str, Any]], bounds: Sequence[float]) -> str:
    """A row for each method and bound, over all styles."""
    rows = [["method", "bound", "n", "ended early", "mean steps", "s an image", "saved", "changed", "top-1"]]
    for name in SETTINGS:
        whole = 0.0
        for bound in (0.0, *bounds):
            own = [line for line in lines if line["method"] == name and line["bound"] == bound]
            total = {key: sum(line[key] for line in own) for key in own[0] if key not in ("method", "style", "bound")}
            n = total["n"]
            whole = whole or total["seconds"]
            rows.append(
                [
                    name,
                    f"{bound:g}" if bound else "off",
                    str(n),
                    f"{100 * total['settled'] / n:.0f}%",
                    f"{total['steps'] / n:.2f}",
                    f"{total['seconds'] / n:.3f}",
                    f"{100 * (1 - total['seconds'] / whole):.0f}%",
                    str(total["changed"]),
                    f"{100 * total['right_zero_shot'] / n:.1f} -> {100 * total['right'] / n:.1f}",
                ]
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--limit", type=count, default=100, metavar="N", help="pictures of a style, at most 100")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=STYLES, metavar="STYLE", help=" ".join(STYLES))
    parser.add_argument("--bounds", nargs="+", type=float, default=BOUNDS, metavar="BOUND")
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks/settled.json"), metavar="FILE")
    options = parser.parse_args(argv)
    check_writable(options.output)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as data:
        for style in options.styles:
            write_classification(Path(data) / style, style, 1, VALIDATION_SEED)
        lines = []
        for line in compare(Path(data), options.styles, options.limit, options.bounds):
            lines.append(line)
            content = {"command": command_line(), "versions": versions(), "lines": lines}
            write_atomically(options.output, json.dumps(content, indent=2) + "\n")
    print(table(lines, options.bounds))


if __name__ == "__main__":
    run_main(main)
