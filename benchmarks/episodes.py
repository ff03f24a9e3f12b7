"""Several images at once, `--episodes N`, against one at a time, both by the project's own path.

Where a tower is so small that starting its operations costs more than computing them, as on a GPU that waits for its
kernels to be launched, N images cost little more than one. Small towers on one thread simulate that.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import Models, Row, build, parse, picture, report, row
from benchmarks.measure import gemm_peak, measure
from classification.main import ClassificationConfig, adapt_group, make_policy, make_rewards
from rlcf.episode import Episodes
from rlcf.errors import run_main
from rlcf.views import Views

COUNT = 8
CLASSES = 10
PRESETS = {
    "prompt": ClassificationConfig(method="rlcf", tune="prompt", lr=7e-3, views=8, selection=0.4),
    "norm": ClassificationConfig(method="rlcf", tune="norm", lr=1e-3, views=8, selection=0.4),
}


def adapting(models: Models, config: ClassificationConfig, images: list[Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    """All images' logits before and after, `config.episodes` at a time."""
    student, names = models.student, IMAGENET_CLASSNAMES[:CLASSES]
    size = config.episodes
    # Each side has a student of its own: layers of several images replace those of one.
    policy = make_policy(config, student, names)
    rewards = make_rewards(config, [models.reward], names)
    episodes = Episodes.from_config(config, policy.tuned, policy.buffers, student.precision)

    def call() -> tuple[Tensor, Tensor]:
        groups = [images[i : i + size] for i in range(0, len(images), size)]
        pairs = [pair for group in groups for pair in adapt_group(config, policy, rewards, episodes, group)]
        if any(after is None for _, after in pairs):
            raise RuntimeError("an episode was given up")
        return torch.stack([before for before, _ in pairs]), torch.stack([after for _, after in pairs])

    return call


def compare(options: argparse.Namespace, tune: str, peak: float) -> Row:
    config = PRESETS[tune]
    alone, together = (build(options.size, options.device) for _ in range(2))
    views = Views(alone.student.centre_view, alone.student.size, config.views)
    images = [views(picture(seed=number), number) for number in range(COUNT)]
    one = adapting(alone, config, images)
    several = adapting(together, replace(config, episodes=COUNT), images)
    measured = measure(one, several, options.repeats, options.device)
    return row(f"RLCF {tune}, {COUNT} images, 8 views, {CLASSES} classes, 3 steps", measured, peak)


def main(argv: list[str] | None = None) -> None:
    options = parse(__doc__ or "", argv, "episodes", 20)
    torch.set_num_threads(1 if options.size == "tiny" else options.threads)
    peak = gemm_peak(options.device)
    report(options, [compare(options, tune, peak) for tune in PRESETS], peak, sides=("one at a time", "together"))


if __name__ == "__main__":
    run_main(main)
