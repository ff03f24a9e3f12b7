"""Adapting to one query: both directions of retrieval against the published computation.

A gallery of 1000 random unit-length features, which stay frozen and cost nothing in either; 8 steps, K and learning
rate of the published COCO runs. Text to image also tunes the embeddings and the logit scale, as published.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import reference
from benchmarks.common import PRECISION, Clips, Row, build, parse, picture, report, row
from benchmarks.measure import measure
from retrieval.config import RetrievalConfig
from retrieval.retriever import Retriever, encode_views, make_rewards
from retrieval.reward import Query
from rlcf.adapt.views import Views
from rlcf.clip.backbone import DTYPES, Backbone
from rlcf.errors import run_main

GALLERY = 1000
TEXT = "a man rides a brown horse along the beach"
HYPER = {"steps": 8, "lr": 1e-6, "weight_decay": 5e-4, "eps": 1e-6}
PRESETS = {
    "i2t": RetrievalConfig(direction="i2t", sample_k=20, **HYPER),
    "t2i": RetrievalConfig(direction="t2i", sample_k=12, tune_embeddings=True, **HYPER),
}
NAMES = {
    "i2t": "RLCF image to text, 1000 texts, 8 steps",
    "t2i": "RLCF text to image, 1000 images, 8 steps",
}

Pair = tuple[Tensor, Tensor]


def gallery(clip: Backbone, seed: int) -> Tensor:
    """(G, D), unit length."""
    width = clip.model.text_projection.shape[1]
    features = torch.randn(GALLERY, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(features, dim=-1).to(clip.device)


def both(clips: Clips, direction: str) -> tuple[Callable[[], Pair], Callable[[], Pair]]:
    """The loop, and a run's work for each query: the reward model encodes the query in both."""
    config, student, reward = PRESETS[direction], clips.student, clips.reward
    ours, theirs = gallery(student, 0), gallery(reward, 1)
    hyper = {**HYPER, "k": config.sample_k}
    image = Views(student.centre_view, student.size, count=1)(picture(), 0)
    models = clips.models(config)
    rewards = make_rewards(config, models, {0: theirs})
    retriever = Retriever.of(config, models, ours, rewards, range(GALLERY))
    tokens = student.tokenize([TEXT]).to(student.device)
    start = {name: value.clone() for name, value in student.model.state_dict().items()}

    def fast() -> Pair:
        if direction == "i2t":
            query = Query(image, {0: encode_views(reward, image)[0]})
        else:
            query = Query(TEXT, {0: reward.encode_text([TEXT])[0]})
        (outcome,) = retriever.adapt([(0, query)])
        if outcome.after is None:
            raise RuntimeError("the episode was given up")
        return outcome.before, outcome.after

    def loop() -> Pair:
        if direction == "t2i":
            return reference.adapt_text_query(student.model, reward.model, ours, theirs, tokens, start, **hyper)
        pixels, seen = student.prepare(image), reward.prepare(image)
        return reference.adapt_image_query(student.model, reward.model, ours, theirs, pixels, seen, start, **hyper)

    return clips.as_published(loop), fast


def compare(clips: Clips, direction: str, repeats: int | None, dtype: torch.dtype) -> Row:
    named, device = clips.named(PRESETS[direction]), clips.student.device
    measured = measure(*both(clips, direction), repeats, device, clips=named, dtype=dtype)
    return row(NAMES[direction], measured, {"i2t": 0.8, "t2i": 0.6}[direction])


def main(argv: list[str] | None = None) -> None:
    works = {"--works": {"nargs": "+", "choices": list(PRESETS), "default": list(PRESETS), "help": "which rows"}}
    options = parse(__doc__ or "", argv, "retrieval", None, PRECISION | works)
    clips, dtype = build(options.size, options.device, options.precision), DTYPES[options.precision]
    report(options, [compare(clips, direction, options.repeats, dtype) for direction in options.works])


if __name__ == "__main__":
    run_main(main)
