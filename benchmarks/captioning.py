"""Adapting a captioner to one image against the published computation.

A language model of OPT-125m's size, the published mapper (8 layers, prefix 40) and a ViT-L/14 reward, all with random
weights; 4 steps, K and learning rate of the published runs, captions of 12 tokens. `--size tiny` takes the embedded
captioner instead.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import reference
from benchmarks.common import PRECISION, Row, build, length_first, parse, picture, report, row, uncached_autocast
from benchmarks.measure import measure
from caption.captioner import Captioner, CaptionModels, load_caption_models
from caption.config import CaptionConfig
from caption.language_model import LanguageModel
from caption.mapper import TransformerMapper
from demo.world import VALIDATION_SEED, scene_images
from rlcf.adapt.views import Views
from rlcf.clip.backbone import DTYPES
from rlcf.errors import run_main
from rlcf.linear import Linear, use_linear
from rlcf.run.setup import Setup
from rlcf.run.shard import Shard

HYPER: dict[str, Any] = {"steps": 4, "sample_k": 10, "lr": 2e-6, "eps": 1e-6, "weight_decay": 0.0, "max_new_tokens": 12}
EMBEDDED: dict[str, Any] = {
    "student": "demo-student",
    "reward": ["demo-reward"],
    "checkpoint": "demo-clipcap",
    "language_model": "demo-lm",
}

Pair = tuple[Tensor, Tensor]


def opt(device: torch.device, precision: str) -> LanguageModel:
    """A language model of OPT-125m's architecture with random weights, whose tokens are words."""
    config = OPTConfig()
    words = sorted(set(open_clip.SimpleTokenizer().encoder))
    ids = {"</s>": 2, "<pad>": 1} | {word: place for place, word in enumerate(words, start=3)}
    fill = (f"word{place}" for place in range(config.vocab_size))
    ids |= {next(fill): place for place in range(config.vocab_size) if place not in set(ids.values())}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = OPTForCausalLM(config)
    use_linear(model)
    return LanguageModel(model.eval().requires_grad_(False).to(device), fast, 2, (2,), device, precision)


def captioner(size: str, device: torch.device, precision: str) -> tuple[Captioner, Tensor]:
    """A captioner and the view of an image."""
    if size == "tiny":
        config = CaptionConfig(**EMBEDDED, **{**HYPER, "lr": 1e-4})
        models = load_caption_models(Setup(config, Shard(), device, precision))
        pixels = (255 * scene_images("blur", 1, VALIDATION_SEED)[0]).round().to(torch.uint8)
        return Captioner.of(config, models), pixels
    clips, lm = build(size, device, precision), opt(device, precision)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mapper = TransformerMapper(clips.student.model.visual.output_dim, lm.width).eval().to(device)
    mapper.requires_grad_(False)
    view = Views(clips.student.centre_view, clips.student.size, count=1)(picture(), 0)
    return Captioner.of(CaptionConfig(**HYPER), CaptionModels(clips.student, [clips.reward], mapper, lm)), view


def both(ours: Captioner, view: Tensor) -> tuple[Callable[[], Pair], Callable[[], Pair]]:
    """The loop, and a run's work for each image. Both return the prefix before and after."""
    config, models = ours.config, ours.models
    reward, lm = models.rewards[0], models.lm
    start = {name: value.clone() for name, value in models.mapper.state_dict().items()}
    pixels = reward.prepare(view)
    prefixes: list[Tensor] = []

    def fast() -> Pair:
        prefixes.clear()
        caption = ours._caption  # what the language model reads for the final captions: before and after
        ours._caption = lambda prefix: prefixes.append(prefix) or caption(prefix)  # type: ignore[method-assign]
        try:
            ours.adapt([(0, view)])
        finally:
            ours._caption = caption  # type: ignore[method-assign]
        return prefixes[0][0], prefixes[0][1]

    def loop() -> Pair:
        feature = ours.policy.encode(view)
        layers = torchs_layers(models.mapper, lm.model)
        with torch.enable_grad(), uncached_autocast(models.student), layers, length_first(reward):
            models.mapper.requires_grad_(True)
            try:
                return reference.adapt_caption(
                    models.mapper,
                    lm.model,
                    lm.tokenizer,
                    reward.model,
                    reward.tokenize,
                    feature,
                    pixels,
                    start,
                    bos=lm.bos,
                    stops=list(lm.stops),
                    steps=config.steps,
                    lr=config.lr,
                    weight_decay=config.weight_decay,
                    eps=config.eps,
                    k=config.sample_k,
                    max_new_tokens=config.max_new_tokens,
                    beams=config.beams,
                )
            finally:
                models.mapper.requires_grad_(False)
                for weight in models.mapper.parameters():
                    weight.grad = None

    return loop, fast


@contextmanager
def torchs_layers(*modules: nn.Module) -> Iterator[None]:
    """Within this context each `Linear` is a `torch.nn.Linear`, as in the published code."""
    layers = [layer for module in modules for layer in module.modules() if type(layer) is Linear]
    for layer in layers:
        layer.__class__ = nn.Linear
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = Linear


def compare(size: str, device: torch.device, precision: str, repeats: int | None) -> Row:
    ours, view = captioner(size, device, precision)
    named = {"student": ours.models.student, "reward": ours.models.rewards[0]}
    measured = measure(*both(ours, view), repeats, device, clips=named, dtype=DTYPES[precision])
    config = ours.config
    return row(f"RLCF captioning, {config.sample_k} captions, {config.steps} steps", measured)


def main(argv: list[str] | None = None) -> None:
    options = parse(__doc__ or "", argv, "captioning", None, PRECISION)
    report(options, [compare(options.size, options.device, options.precision, options.repeats)])


if __name__ == "__main__":
    run_main(main)
