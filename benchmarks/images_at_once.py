"""Several images at once, `--images-at-once N`, against one at a time, both by the project's own path.

Where a model is so small that starting its operations costs more than computing them, as on a GPU that waits for its
kernels to be launched, N images cost little more than one. Small models on one thread simulate that. Captioning, token
after token, is measured with the embedded captioner whatever the --size; what is compared of it are the rewards.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import Clips, Row, build, parse, picture, report, row
from benchmarks.measure import Call, measure
from caption.captioner import Captioner, CaptionModels, load_caption_models
from caption.config import CaptionConfig
from classification.classifier import Classifier
from classification.config import ClassificationConfig
from demo.world import VALIDATION_SEED, scene_images
from rlcf.adapt.groups import Adapt, in_groups
from rlcf.adapt.views import Views
from rlcf.errors import run_main
from rlcf.run.setup import Setup
from rlcf.run.shard import Shard

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


def classifying(clips: Clips, config: ClassificationConfig, images: list[Tensor]) -> Call:
    """All images' logits before and after, `config.images_at_once` at a time."""
    classifier = Classifier.of(config, clips.models(config), IMAGENET_CLASSNAMES[:CLASSES])

    def call() -> tuple[Tensor, Tensor]:
        found = outcomes(images, config.images_at_once, classifier.adapt)
        if any(outcome.after is None for outcome in found):
            raise RuntimeError("an episode was given up")
        return torch.stack([outcome.before for outcome in found]), torch.stack([outcome.after for outcome in found])

    return call


def captioning(models: CaptionModels, config: CaptionConfig, images: list[Tensor]) -> Call:
    """The rewards of all images' captions before and after, `config.images_at_once` at a time."""
    captioner = Captioner.of(config, models)

    def call() -> tuple[Tensor, ...]:
        found = outcomes(images, config.images_at_once, captioner.adapt)
        return torch.tensor([[answer.zero_shot_reward, answer.adapted_reward] for answer in found]).unbind(dim=1)

    return call


def outcomes(images: list[Tensor], size: int, adapt: Adapt[Tensor, Any]) -> list[Any]:
    """The outcome of each image, as an entry script comes by it."""
    return [outcome for _, outcome, _ in in_groups(iter(list(enumerate(images))), size, adapt)]


def compare(options: argparse.Namespace, tune: str) -> Row:
    """Classification, one image at a time beside all at once."""
    config, clips = PRESETS[tune], build(options.size, options.device)
    views = Views(clips.student.centre_view, clips.student.size, config.views)
    images = [views(picture(seed=number), number) for number in range(COUNT)]
    one, several = (classifying(clips, replace(config, images_at_once=size), images) for size in (1, COUNT))
    measured = measure(one, several, options.repeats, options.device)
    return row(f"RLCF {tune}, {COUNT} images, 8 views, {CLASSES} classes, 3 steps", measured)


def compare_captioning(options: argparse.Namespace) -> Row:
    """Captioning, one image at a time beside all at once."""
    pictures, _ = scene_images("blur", COUNT, VALIDATION_SEED)
    images = [picture[None] for picture in (255 * pictures).round().to(torch.uint8)]
    models = load_caption_models(Setup(CAPTIONS, Shard(), options.device, "fp32"))
    one, several = (captioning(models, replace(CAPTIONS, images_at_once=size), images) for size in (1, COUNT))
    measured = measure(one, several, options.repeats, options.device)
    return row(f"RLCF captioning, {COUNT} images, 10 captions, 4 steps", measured)


def main(argv: list[str] | None = None) -> None:
    options = parse(__doc__ or "", argv, "images-at-once", 20)
    torch.set_num_threads(1 if options.size == "tiny" else options.threads)
    rows = [compare(options, tune) for tune in PRESETS] + [compare_captioning(options)]
    report(options, rows, sides=("one at a time", "together"))


if __name__ == "__main__":
    run_main(main)
