"""Shared by the benchmarks: flags, models with random weights, a picture, the table and its JSON."""

import argparse
import dataclasses
import json
import math
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg
from open_clip.transformer import Transformer
from PIL import Image
from torch import nn

from benchmarks.measure import Measurement, square_rates
from rlcf.clip.backbone import DTYPES, Backbone
from rlcf.errors import UserError
from rlcf.run.config import Settings, command_line
from rlcf.run.device import resolve_device
from rlcf.run.files import write_atomically
from rlcf.run.folder import versions
from rlcf.run.memory import keep_freed_memory
from rlcf.run.parser import Parser
from rlcf.run.settings import Config
from rlcf.run.setup import Models

Result = TypeVar("Result")
SIZES = ("tiny", "b16")
TINY = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
PRECISION = {
    "--precision": {"choices": ("fp32", "bf16", "fp16"), "default": "fp32", "help": "of both sides, by autocast"}
}
"""The flag of a benchmark that can compute in less than fp32."""
ARCHITECTURES = {"tiny": (TINY, TINY), "b16": ("ViT-B-16-quickgelu", "ViT-L-14-quickgelu")}
"""Of the student and the reward model."""


def parse(
    description: str,
    argv: Sequence[str] | None,
    name: str,
    repeats: int | None = None,
    further: Mapping[str, Mapping[str, Any]] | None = None,
) -> argparse.Namespace:
    """A benchmark's flags: size, precision, repeats, threads, device (a torch.device), output (a Path).

    torch gets the threads.

    name: of the script, for its JSON; further: flag -> what argparse's `add_argument` takes.
    Raises UserError for a mistake in them, before anything is measured.
    """
    parser = Parser(description=description, allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--size", choices=SIZES, default="tiny", help="random-weight models: tiny, or ViT-B/16 with a ViT-L/14 reward"
    )
    told = "" if repeats else "; by default five, or three where a pair takes a minute"
    parser.add_argument("--repeats", type=count, default=repeats, metavar="N", help=f"pairs of timed calls{told}")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="of torch on the CPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    output = Path("output/benchmarks") / f"{name}.json"
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help="JSON of the table")
    parser.set_defaults(precision="fp32")  # of a benchmark without the flag
    for flag, described in (further or {}).items():
        parser.add_argument(flag, **described)
    options = parser.parse_args(argv)
    options.device = resolve_device(Settings(device=options.device))
    check_writable(options.output)
    torch.set_num_threads(options.threads)
    if options.device.type == "cpu" and argv is None:
        keep_freed_memory()  # as a run does; the loop has it too
    return options


def count(text: str) -> int:
    """A flag's value, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def check_writable(file: Path) -> None:
    """Make the file's folder. Raises UserError for a file that cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {file} ({error.strerror}); choose another --output") from error
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise UserError(f"cannot write {file}; choose another --output")


def uncached_autocast(clip: Backbone) -> torch.autocast:
    """Autocast to a model's precision for a loop of several steps: weights that a step has changed are cast anew."""
    dtype = DTYPES[clip.precision]
    return torch.autocast(clip.device.type, dtype, enabled=clip.precision != "fp32", cache_enabled=False)


@contextmanager
def length_first(*clips: Backbone) -> Iterator[None]:
    """Within this context transformers' tensors are (L, N, width), as in OpenAI's code, which the authors' is built on.

    open_clip's are (N, L, width). In fp32 neither is the faster one, but for some batches torch projects the input of
    attention many times slower in bf16 on a CPU: that is no part of the published computation.
    """
    modules = [module for clip in clips for module in clip.model.modules()]
    layers = [module for module in modules if isinstance(module, Transformer | nn.MultiheadAttention)]
    for layer in layers:
        layer.batch_first = False
    try:
        yield
    finally:
        for layer in layers:
            layer.batch_first = True


@dataclass(frozen=True)
class Clips:
    """Both sides of a comparison take the same weights: the loops `.model`, the fast paths the Backbone."""

    student: Backbone
    reward: Backbone

    def as_published(self, loop: Callable[[], Result]) -> Callable[[], Result]:
        """The loop under autocast to the models' precision, its tensors laid out as in the authors' code."""

        def call() -> Result:
            with uncached_autocast(self.student), length_first(self.student, self.reward):
                return loop()

        return call

    def named(self, config: Config) -> dict[str, Backbone]:
        """The models that a method needs, by their names in the table."""
        return {"student": self.student} | ({"reward": self.reward} if config.asks_rewards else {})

    def models(self, config: Config) -> Models:
        """The models that a method needs."""
        return Models(self.student, [self.reward] if config.asks_rewards else [])


def build(size: str, device: torch.device, precision: str = "fp32") -> Clips:
    """A student and a reward model with random weights, the same at every call."""
    student, reward = ARCHITECTURES[size]
    return Clips(
        build_one("student", student, 0, device, precision),
        build_one("reward", reward, 2, device, precision),  # with seed 1 all scores of the tiny one clamp to 0
    )


def build_one(
    name: str, architecture: str | dict[str, Any], seed: int, device: torch.device, precision: str = "fp32"
) -> Backbone:
    """A model with random weights. architecture: open_clip's name, or its settings."""
    config = open_clip.get_model_config(architecture) if isinstance(architecture, str) else architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.CLIP(**config, init_logit_scale=math.log(100))  # as trained CLIPs have it
    model = model.eval().requires_grad_(False).to(device)
    preprocess = vars(PreprocessCfg(size=model.visual.image_size))
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return Backbone(name, model, tokenizer, preprocess, device, precision)


def picture(width: int = 500, height: int = 375, seed: int = 0) -> Image.Image:
    """Soft colours with finer and finer detail, as a photograph has: random crops of it differ."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3))
    for octave in range(7):
        coarse = rng.normal(size=(3, 3 * 2**octave, 4 * 2**octave)).astype(np.float32)
        channels = [Image.fromarray(c).resize((width, height), Image.Resampling.BICUBIC) for c in coarse]
        pixels += np.stack(channels, axis=-1) / 1.5**octave
    return Image.fromarray((255 / (1 + np.exp(-pixels))).round().astype(np.uint8))


@dataclass(frozen=True)
class Row:
    """One line of the table. seconds: median of `repeats` calls; ratio_...: how many times faster; ..._mb: peak memory.

    gflops: what products of square matrices reach between the fast path's operations (`GemmRate`), GFLOP/s.
    ceiling: the seconds that the fast path's own matrix products and convolutions take at that rate; fraction: of it,
    ceiling / seconds, with the rate of each call; required: the fraction that must be reached.
    difference: largest one of the logits; moved: how far adaptation moved them; passes: of each CLIP in one call.
    None, of those with a default: not measured, or not asked for.
    """

    work: str
    reference_seconds: float
    fast_seconds: float
    ratio_min: float
    ratio_median: float
    ratio_max: float
    repeats: int
    difference: float | None = None
    moved: float | None = None
    reference_mb: float | None = None
    fast_mb: float | None = None
    gflops: float | None = None
    ceiling_seconds: float | None = None
    reference_fraction: float | None = None
    fast_fraction: float | None = None
    required: float | None = None
    reference_passes: Mapping[str, str] = field(default_factory=dict)
    fast_passes: Mapping[str, str] = field(default_factory=dict)


def row(work: str, measured: Measurement, required: float | None = None) -> Row:
    """The row of what was measured. required: fraction of the ceiling."""
    gflops = median(measured.fast_gflops)

    def fraction(seconds: Sequence[float], rates: Sequence[float]) -> float | None:
        flops = measured.fast_flops
        return median(flops / 1e9 / r / s for s, r in zip(seconds, rates, strict=True)) if flops else None

    return Row(
        work=work,
        reference_seconds=median(measured.reference_seconds),
        fast_seconds=median(measured.fast_seconds),
        ratio_min=min(measured.ratios),
        ratio_median=median(measured.ratios),
        ratio_max=max(measured.ratios),
        repeats=len(measured.ratios),
        difference=measured.difference,
        moved=measured.moved,
        reference_mb=measured.reference_mb,
        fast_mb=measured.fast_mb,
        gflops=gflops,
        ceiling_seconds=measured.fast_flops / 1e9 / gflops if measured.fast_flops else None,
        reference_fraction=fraction(measured.reference_seconds, measured.reference_gflops),
        fast_fraction=fraction(measured.fast_seconds, measured.fast_gflops),
        required=required,
        reference_passes=measured.reference_passes,
        fast_passes=measured.fast_passes,
    )


def report(options: argparse.Namespace, rows: Sequence[Row], sides: tuple[str, str] = ("loop", "ours")) -> None:
    """Print the table and write its JSON to `options.output`. sides: what the reference and the fast one are called."""
    about: dict[str, Any] = {
        "command": command_line(),
        "size": options.size,
        "precision": options.precision,
        "device": device_name(options.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    machine = f"{about['device']}, {about['threads']} threads, size {options.size}, {options.precision}"
    print(f"{machine}\n")
    print(table(rows, sides), flush=True)
    if options.device.type == "cpu":
        about["square_gflops"] = square_rates()
        told = ", ".join(f"{name} {rate:.0f}" for name, rate in about["square_gflops"].items())
        print(f"products of square matrices in fp32, GFLOP/s: {told}")
    for line in rows:
        for side, passes in zip(sides, (line.reference_passes, line.fast_passes), strict=True):
            if passes:
                told = ", ".join(f"{name} {count}" for name, count in passes.items())
                print(f"{line.work}, {side}, passes a sample: {told}")
    content = about | {"rows": [dataclasses.asdict(line) for line in rows]}
    write_atomically(options.output, json.dumps(content, indent=2) + "\n")


def table(rows: Sequence[Row], sides: tuple[str, str] = ("loop", "ours")) -> str:
    """Fixed width."""
    both = " -> ".join(sides)
    head = ["work", f"{both}, s", "times faster (min - max)", "needed", "logits differ", "adaptation moves them"]
    head += [f"{both}, MB", "GEMM, GFLOP/s", "of the ceiling", "pairs"]
    lines = [head, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    widths[0] = -widths[0]  # the work to the left, numbers to the right
    return "\n".join(
        "  ".join(f"{cell:{'<' if width < 0 else '>'}{abs(width)}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def _cells(line: Row) -> list[str]:
    def pair(first: float | None, second: float | None, spec: str) -> str:
        if first is None and second is None:
            return ""
        return " -> ".join("?" if value is None else format(value, spec) for value in (first, second))

    def one(value: float | None, spec: str) -> str:
        return "" if value is None else format(value, spec)

    return [
        line.work,
        pair(line.reference_seconds, line.fast_seconds, ".3f"),
        f"{line.ratio_median:.2f} ({line.ratio_min:.2f} - {line.ratio_max:.2f})",
        one(line.required, ".0%"),
        one(line.difference, ".1e"),
        one(line.moved, ".2g"),
        pair(line.reference_mb, line.fast_mb, ".0f"),
        one(line.gflops, ".0f"),
        pair(line.reference_fraction, line.fast_fraction, ".0%"),
        str(line.repeats),
    ]


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return named[1] if named else platform.processor() or platform.machine()
