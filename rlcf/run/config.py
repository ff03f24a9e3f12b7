"""One experiment's settings: defaults < YAML preset < command-line flags -> one resolved config."""

import argparse
import copy
import dataclasses
import difflib
import math
import re
import shlex
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from omegaconf import OmegaConf

from rlcf.errors import UserError


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    group: str = "run",
) -> Any:
    """A field of a config: its default, one line of help, and what values it takes."""
    metadata = {"help": help, "choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    return field(default_factory=lambda: copy.copy(default), metadata={**metadata, "group": group})


@dataclass
class Settings:
    """What every command has. A command adds its own options by a dataclass that extends this one."""

    data: str = option("", "folder that holds the datasets")
    output: str = option("output/run", "run folder: config.yaml, records.jsonl per dataset, results.json, log.txt")
    device: str = option("auto", "auto (CUDA when there is one), cpu, cuda or cuda:N")
    precision: str = option(
        "auto", "auto (fp16 autocast on CUDA, fp32 on CPU)", choices=("auto", "fp32", "bf16", "fp16")
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""


@dataclass
class Config(Settings):
    """What every task's adaptation has."""

    seed: int = option(0, "with a sample's index decides its views; also the order of the samples", at_least=0)
    limit: int | None = option(None, "use only the first N samples of each dataset's shuffled order", at_least=1)
    workers: int = option(2, "processes that read images and make views; 0: none but this one", at_least=0)
    skip_bad_images: bool = option(False, "record an image that cannot be read and go on, instead of stopping")

    student: str = option(
        "ViT-B/16", "the CLIP that adapts: OpenAI or open_clip name, hf-hub:..., path", group="models"
    )
    reward: list[str] = option(["ViT-L/14"], "the reward CLIP, or several for an ensemble", group="models")
    reward_weights: list[float] | None = option(
        None, "weight of each reward model in an ensemble (normalised); equal when not given", group="models"
    )
    round_reward_weights: bool = option(False, "round the weights to two digits, as published", group="models")
    clip_root: str | None = option(None, "folder with OpenAI's files (ViT-B-16.pt, ...)", group="models")

    steps: int = option(3, "adaptation steps per sample", at_least=1, group="adaptation")
    lr: float = option(1e-5, "learning rate of AdamW", above=0, group="adaptation")
    weight_decay: float = option(5e-4, "weight decay of AdamW", at_least=0, group="adaptation")
    eps: float = option(1e-8, "epsilon of AdamW", above=0, group="adaptation")
    sample_k: int = option(3, "K: answers that are sampled and rewarded", at_least=1, group="adaptation")
    clipscore_weight: float = option(2.5, "w in CLIPScore = w * max(cos, 0)", above=0, group="adaptation")
    baseline: str = option(
        "answers",
        "mean score that is subtracted: over the K answers of a view, over all views and answers, or none",
        choices=("answers", "all", "none"),
        group="adaptation",
    )
    divide_by_std: bool = option(False, "divide advantages by their standard deviation", group="adaptation")
    momentum: bool = option(False, "let adapted weights flow into a momentum buffer", group="adaptation")
    momentum_decay: float = option(
        0.9998, "share of the buffer that a sample keeps", at_least=0, at_most=1, group="adaptation"
    )
    momentum_every: int = option(64, "samples between updates of the starting weights", at_least=1, group="adaptation")
    momentum_weight: float = option(
        1.0, "share of the buffer in the new starting weights", at_least=0, at_most=1, group="adaptation"
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        weights = self.reward_weights
        if weights is not None and len(weights) != len(self.reward):
            raise UserError(f"--reward-weights has {len(weights)} numbers for {len(self.reward)} reward models")
        if weights is not None and (min(weights) < 0 or sum(weights) <= 0):
            raise UserError("--reward-weights must not be negative, nor all 0")
        if self.divide_by_std and self.baseline == "none":
            raise UserError("--divide-by-std needs a mean to start from; use --baseline answers or all")


AnyConfig = TypeVar("AnyConfig", bound=Settings)


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are `UserError`s."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def parse_config(kind: type[AnyConfig], argv: list[str] | None, description: str, epilog: str) -> AnyConfig:
    """The resolved config of a command line.

    Raises UserError naming the flag, or the preset and its key, that is unknown or has a value of the wrong kind, and
    for settings that contradict each other.
    """
    parser = Parser(
        usage="%(prog)s [--config FILE] [flags]",
        description=description,
        epilog=epilog,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=118),
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML preset; its keys are the flags below with _ for -")
    parser.add_argument("--gpu", metavar="N", help="short for --device cuda:N; 'cpu' for --device cpu")
    groups: dict[str, Any] = {}
    types_of = typing.get_type_hints(kind)
    for spec in dataclasses.fields(kind):
        name = spec.metadata["group"]
        group = groups.setdefault(name, parser.add_argument_group(name) if name not in groups else None)
        _add_flag(group, spec, types_of[spec.name])
    given = vars(parser.parse_args(argv))
    preset, gpu = given.pop("config", None), given.pop("gpu", None)
    flags = {key: value for key, value in given.items() if value is not None}
    if gpu is not None:
        flags["device"] = gpu if gpu == "cpu" else f"cuda:{gpu}"
    settings = {**(read_preset(kind, preset) if preset else {}), **flags}
    values = {}
    for spec in dataclasses.fields(kind):
        if spec.name in settings:
            source = f"--{_dashed(spec.name)}" if spec.name in flags else f"{preset}: {spec.name}"
            values[spec.name] = _convert(settings[spec.name], types_of[spec.name], spec.metadata, source)
    config = kind(**values)
    config.check()
    return config


def read_preset(kind: type[Settings], path: str) -> dict[str, Any]:
    """A YAML preset as a dict. Raises UserError for a missing file, broken YAML or an unknown key."""
    if not Path(path).is_file():
        raise UserError(f"no preset {path}")
    try:
        preset = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except Exception as error:  # YAML and OmegaConf errors of several kinds
        raise UserError(f"{path} is no readable YAML preset ({str(error).splitlines()[0]})") from error
    if not isinstance(preset, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    known = [spec.name for spec in dataclasses.fields(kind)]
    for key in preset:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            raise UserError(f"{path}: unknown key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    return {str(key): value for key, value in preset.items()}


def to_yaml(config: Settings) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def resolve_device(config: Settings, local_rank: int = 0) -> torch.device:
    """The device that `config.device` means on this machine; local_rank: which of its processes this is.

    Raises UserError when it has no such device, or fewer GPUs than processes.
    """
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    named = re.fullmatch(r"auto|cuda|cuda:(\d+)", config.device)
    if named is None:
        raise UserError(f"unknown device '{config.device}'; use auto, cpu or cuda:N")
    index, count = int(named[1] or local_rank), torch.cuda.device_count()
    if index >= count:
        fewer = f", or start at most {count} processes" if count and not named[1] else ""
        raise UserError(f"no GPU {index}: this machine has {count}; use --device cpu{fewer}")
    return torch.device("cuda", index)


def resolve_precision(config: Settings, device: torch.device) -> str:
    if config.precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return config.precision


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _plain_type(kind: Any) -> tuple[Any, bool]:
    """(int | None) -> (int, True); int -> (int, False)."""
    if isinstance(kind, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return inner, True
    return kind, False


def _add_flag(group: Any, spec: dataclasses.Field[Any], hint: Any) -> None:
    kind, _ = _plain_type(hint)
    default = spec.default_factory() if callable(spec.default_factory) else None
    text = spec.metadata["help"].replace("%", "%%")
    if kind is bool:
        text += f" (default: {'yes' if default else 'no'})"
        group.add_argument(f"--{_dashed(spec.name)}", action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    text += f" (default: {shown})" if shown not in (None, "") else ""
    several = {"nargs": "+"} if typing.get_origin(kind) is list else {}
    choices = spec.metadata["choices"]
    metavar = "{" + ",".join(choices) + "}" if choices else spec.name.rsplit("_", 1)[-1].upper()
    group.add_argument(f"--{_dashed(spec.name)}", metavar=metavar, help=text, **several)


def _convert(value: Any, hint: Any, limits: Any, source: str) -> Any:
    kind, optional = _plain_type(hint)
    if optional and value in (None, "none", ["none"]):
        return None
    if value is None or value == []:
        raise UserError(f"{source} needs a value")
    if typing.get_origin(kind) is list:
        (inner,) = typing.get_args(kind)
        return [_convert(v, inner, limits, source) for v in (value if isinstance(value, list) else [value])]
    try:
        converted = _read(value, kind)
    except (ValueError, TypeError, OverflowError) as error:
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise UserError(f"{source}: '{value}' is not {words}") from error
    if limits["choices"] and converted not in limits["choices"]:
        raise UserError(f"{source}: '{value}' is not one of {', '.join(limits['choices'])}")
    for bound, holds, words in (
        (limits["at_least"], lambda v, b: v >= b, "at least"),
        (limits["above"], lambda v, b: v > b, "above"),
        (limits["at_most"], lambda v, b: v <= b, "at most"),
    ):
        if bound is not None and not holds(converted, bound):
            raise UserError(f"{source}: {value} must be {words} {bound:g}")
    return converted


def _read(value: Any, kind: Any) -> Any:
    """A bool, int, float or str; 4.0 and "1e3" are whole numbers. Raises ValueError, TypeError or OverflowError."""
    if isinstance(value, bool) != (kind is bool) or isinstance(value, list | dict):
        raise TypeError
    if kind in (bool, str) or (kind is int and re.fullmatch(r"[+-]?\d+", str(value))):
        return kind(value)
    number = float(value)
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError
    return kind(number)


def command_line(script: str = "", argv: list[str] | None = None) -> str:
    """The command as it was typed, for log.txt; of a script that was called with `argv`, as it would be typed."""
    return " ".join(sys.argv) if argv is None else shlex.join([script, *argv])
