"""Several images at once, `--episodes N`, against one at a time, both by the project's own path.

Where a model is so small that starting its operations costs more than computing them, as on a GPU that waits for its
kernels to be launched, N images cost little more than one. Small models on one thread simulate that. Captioning, token
after token, is measured with the embedded captioner whatever the --size; what is compared of it are the rewards.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import Models, Row, build, parse, picture, report, row
from benchmarks.measure import Call, gemm_peak, measure
from caption import main as caption
from caption.main import CaptionConfig
from classification.config import ClassificationConfig
from classification.main import adapt_group, make_policy, make_rewards
from demo.world import VALIDATION_SEED, scene_images
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import Adapt, in_groups
from rlcf.adapt.views import Views
from rlcf.clip.backbone import load_clip
from rlcf.errors import run_main

COUNT = 8
CLASSES = 10
PRESETS = {
    "prompt": ClassificationConfig(method="rlcf", tune="prompt", lr=7e-3, views=8, selection=0.4),
    "norm": ClassificationConfig(method="rlcf", tune="norm", lr=1e-3, views=8, selection=0.4),
}
CAPTIONS = CaptionConfig(
    student="demo-student",
    reward=["demo-reward"],
    checkpoint="demo-clipcap",
    language_model="demo-lm",
    sample_k=10,
    steps=4,
    lr=1e-4,
    weight_decay=0.0,
)


def adapting(models: Models, config: ClassificationConfig, images: list[Tensor]) -> Call:
    """All images' logits before and after, `config.episodes` at a time."""
    student, names = models.student, IMAGENET_CLASSNAMES[:CLASSES]
    # Each side has a student of its own: layers of several images replace those of one.
    policy = make_policy(config, student, names)
    rewards = make_rewards(config, [models.reward], names)
    episodes = Episodes.from_config(config, policy.tuned, policy.buffers, student.precision)
    adapt = partial(adapt_group, config, policy, rewards, episodes)

    def call() -> tuple[Tensor, Tensor]:
        before, after = zip(*outcomes(images, config.episodes, adapt), strict=True)
        if None in after:
            raise RuntimeError("an episode was given up")
        return torch.stack(before), torch.stack(after)

    return call


def captioning(config: CaptionConfig, images: list[Tensor], device: torch.device) -> Call:
    """The rewards of all images' captions before and after, `config.episodes` at a time."""
    student, reward = (load_clip(name, device) for name in (config.student, *config.reward))
    captioner = caption.make_captioner(config, student, config.episodes)
    rewards = caption.make_rewards(config, [reward])
    episodes = Episodes.from_config(config, captioner.tuned, captioner.buffers, student.precision)
    adapt = partial(caption.adapt, config, captioner, rewards, episodes)
    return lambda: torch.tensor([found.rewards for found in outcomes(images, config.episodes, adapt)]).unbind(dim=1)


def outcomes(images: list[Tensor], size: int, adapt: Adapt[Tensor, Any]) -> list[Any]:
    """Of each image, as an entry script comes by them."""
    return [outcome for _, outcome, _ in in_groups(iter(list(enumerate(images))), size, adapt)]


def compare(options: argparse.Namespace, tune: str, peak: float) -> Row:
    config = PRESETS[tune]
    alone, together = (build(options.size, options.device) for _ in range(2))
    views = Views(alone.student.centre_view, alone.student.size, config.views)
    images = [views(picture(seed=number), number) for number in range(COUNT)]
    one = adapting(alone, config, images)
    several = adapting(together, replace(config, episodes=COUNT), images)
    measured = measure(one, several, options.repeats, options.device)
    return row(f"RLCF {tune}, {COUNT} images, 8 views, {CLASSES} classes, 3 steps", measured, peak)


def compare_captioning(options: argparse.Namespace, peak: float) -> Row:
    pictures, _ = scene_images("blur", COUNT, VALIDATION_SEED)
    images = [picture[None] for picture in (255 * pictures).round().to(torch.uint8)]
    one = captioning(CAPTIONS, images, options.device)
    several = captioning(replace(CAPTIONS, episodes=COUNT), images, options.device)
    measured = measure(one, several, options.repeats, options.device)
    return row(f"RLCF captioning, {COUNT} images, 10 captions, 4 steps", measured, peak)


def main(argv: list[str] | None = None) -> None:
    options = parse(__doc__ or "", argv, "episodes", 20)
    torch.set_num_threads(1 if options.size == "tiny" else options.threads)
    peak = gemm_peak(options.device)
    rows = [compare(options, tune, peak) for tune in PRESETS] + [compare_captioning(options, peak)]
    report(options, rows, peak, sides=("one at a time", "together"))


if __name__ == "__main__":
    run_main(main)
