"""Adapting to one image: every fast path of classification against the published computation.

64 views of a photograph-like picture, 6 of them kept; ImageNet's class names, 200 of them or all; steps and learning
rates of the published experiments.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import reference, reference_votes
from benchmarks.common import PRECISION, Clips, Row, build, count, parse, picture, report, row
from benchmarks.measure import largest_difference, measure
from classification.class_texts import class_texts
from classification.classifier import Classifier
from classification.clip_model import class_features
from classification.config import ClassificationConfig
from rlcf.adapt.views import Views
from rlcf.clip.backbone import DTYPES
from rlcf.errors import UserError, run_main

WORKS = ("encoder", "prompt", "tpt", "ctpt", "prompt-1000", "zero", "mta")
SCREENED = "screened"
"""A further row, on request: ours with the views screened in bf16, beside ours without."""
REQUIRED = {"encoder": 0.9, "prompt": 0.85, "tpt": 0.85, "prompt-1000": 0.8}
"""Work -> the fraction of the ceiling that must be reached."""
PROMPT = ClassificationConfig(method="rlcf", tune="prompt", lr=7e-3)
PRESETS = {
    "encoder": ClassificationConfig(method="rlcf", tune="image-encoder", lr=1e-5),
    "prompt": PROMPT,
    "tpt": ClassificationConfig(method="tpt", tune="prompt", steps=1, lr=5e-3, weight_decay=0.01),
    "ctpt": ClassificationConfig(method="ctpt", tune="prompt", steps=1, lr=5e-3, weight_decay=0.01),
    "zero": ClassificationConfig(method="zero", selection=0.3),
    "mta": ClassificationConfig(method="mta"),
}
WITHOUT_GRADIENTS = {"zero": reference_votes.votes, "mta": reference_votes.mode_logits}

Pair = tuple[Tensor, Tensor]


class Setting:
    """One image and some classes, for the loop and for the project's own path."""

    def __init__(self, clips: Clips, classes: int, config: ClassificationConfig) -> None:
        self.clips, self.names, self.config = clips, IMAGENET_CLASSNAMES[:classes], config
        views = Views(clips.student.centre_view, clips.student.size, config.views)
        self.views = views(picture(), 0)

    def ours(self) -> Callable[[], Pair]:
        """A run's work for each image, as a call; its work once for all images is done here."""
        classifier = Classifier.of(self.config, self.clips.models(self.config), self.names)

        def call() -> Pair:
            (outcome,) = classifier.adapt([(0, self.views)])
            if outcome.after is None:
                raise RuntimeError("the episode was given up")
            return outcome.before, outcome.after.exp() if self.config.method == "zero" else outcome.after

        return call

    def loop(self) -> Callable[[], Pair]:
        """The published computation of the same, as a call."""
        config, student, reward = self.config, self.clips.student, self.clips.reward
        seen = reward if config.asks_rewards else None
        hyper = {"steps": config.steps, "lr": config.lr, "weight_decay": config.weight_decay, "eps": config.eps}
        hyper |= {"keep": config.kept, "k": config.sample_k}
        of_reward = class_features(reward, self.names, config.prompt) if seen else None
        pixels, reward_pixels = student.prepare(self.views), reward.prepare(self.views) if seen else None
        if config.method in WITHOUT_GRADIENTS:
            of_student, answer = class_features(student, self.names, config.prompt), WITHOUT_GRADIENTS[config.method]
            return lambda: reference_votes.answer_without_gradients(student.model, of_student, pixels, answer)
        if config.tune == "image-encoder":
            of_student = class_features(student, self.names, config.prompt)
            start = {name: value.clone() for name, value in student.model.state_dict().items()}
            return lambda: reference.adapt_image_encoder(
                student.model, seen.model, of_student, of_reward, pixels, reward_pixels, start, **hyper
            )
        texts = [text for name in self.names for text in class_texts(name, config.prompt)]
        tokens = student.tokenize(texts).to(student.device)
        words = student.tokenize([config.prompt])[0, 1 : 1 + len(config.prompt.split())]
        context = student.text_tower.embed(words)
        return lambda: reference.adapt_prompt(
            student.model,
            seen.model if seen else None,
            tokens,
            of_reward,
            context,
            pixels,
            reward_pixels,
            **hyper,
            objective=config.method,
            dispersion_weight=config.dispersion_weight if config.method == "ctpt" else 0.0,
        )


def compare(clips: Clips, work: str, repeats: int | None, dtype: torch.dtype, warm: bool) -> Row:
    """200 classes, the loop beside ours."""
    setting = Setting(clips, 200, PRESETS[work])
    config, device = setting.config, clips.student.device
    loop = clips.as_published(setting.loop())
    measured = measure(loop, setting.ours(), repeats, device, warm=warm, clips=clips.named(config), dtype=dtype)
    steps = "" if work in WITHOUT_GRADIENTS else f", {config.steps} step{'s'[: config.steps - 1]}"
    tuned = "" if work in WITHOUT_GRADIENTS else f" {config.tune}"
    return row(f"{config.method.upper()}{tuned}, 200 classes{steps}", measured, REQUIRED.get(work))


def all_classes(clips: Clips, chunk: int | None, repeats: int | None, dtype: torch.dtype, warm: bool) -> Row:
    """1000 classes: the loop's seconds, memory and FLOPs are extrapolated from 100 and 200, with which they grow.

    Its logits at 1000 are not known, so the difference is that of ours in chunks from ours in one, at 200.
    """
    device = clips.student.device
    few, more = (Setting(clips, classes, PROMPT) for classes in (100, 200))
    whole, in_one, in_chunks = (
        Setting(clips, classes, replace(PROMPT, class_chunk=chunk)).ours()
        for classes, chunk in ((1000, chunk), (200, 200), (200, 64))
    )
    at_200 = measure(clips.as_published(more.loop()), in_chunks, repeats, device, warm=warm, dtype=dtype)
    at_1000 = measure(clips.as_published(few.loop()), whole, repeats, device, warm=warm, compare=False, dtype=dtype)
    exact, chunked = in_one(), in_chunks()

    def extrapolated(at_100: float | None, at_200: float | None) -> float | None:
        """The 800 classes that are missing cost eight times what the second hundred does."""
        return None if at_100 is None or at_200 is None else at_200 + 8 * (at_200 - at_100)

    seconds = map(extrapolated, at_1000.reference_seconds, at_200.reference_seconds)
    measured = replace(
        at_1000,
        reference_seconds=list(seconds),
        reference_mb=extrapolated(at_1000.reference_mb, at_200.reference_mb),
        reference_flops=extrapolated(at_1000.reference_flops, at_200.reference_flops),
        difference=largest_difference(exact, chunked),
        moved=largest_difference(*exact),
    )
    few_s, more_s = median(at_1000.reference_seconds), median(at_200.reference_seconds)
    print(f"the loop's seconds: {few_s:.1f} with 100 classes, {more_s:.1f} with 200")
    return row("RLCF prompt, 1000 classes, 3 steps (loop extrapolated)", measured, REQUIRED["prompt-1000"])


def screened(clips: Clips, repeats: int | None) -> Row:
    """Image-encoder tuning as it is, in place of the loop, and with `--select-precision bf16`."""
    config, device = PRESETS["encoder"], clips.student.device
    exact, quick = (Setting(clips, 200, replace(config, select_precision=p)).ours() for p in ("same", "bf16"))
    measured = measure(exact, quick, repeats, device, clips=clips.named(config))
    return row("RLCF image-encoder, ours -> ours with the views screened in bf16", measured)


def main(argv: list[str] | None = None) -> None:
    further = PRECISION | {
        "--works": {
            "nargs": "+",
            "choices": (*WORKS, SCREENED),
            "default": WORKS,
            "help": "which rows; screened is ours with the views screened in bf16, beside ours without",
        },
        "--class-chunk": {"type": count, "metavar": "N", "help": "of the row with 1000 classes; default: as a run's"},
    }
    options = parse(__doc__ or "", argv, "classification", None, further)
    if SCREENED in options.works and options.precision != "fp32":
        raise UserError("the row 'screened' compares bf16 with fp32: leave out --precision")
    clips, dtype = build(options.size, options.device, options.precision), DTYPES[options.precision]
    rows, warm = [], options.size == "tiny"
    for work in options.works:
        if work == SCREENED:
            rows.append(screened(clips, options.repeats))
        elif work == "prompt-1000":
            rows.append(all_classes(clips, options.class_chunk, options.repeats, dtype, warm))
        else:
            rows.append(compare(clips, work, options.repeats, dtype, warm))
    report(options, rows)


if __name__ == "__main__":
    run_main(main)
