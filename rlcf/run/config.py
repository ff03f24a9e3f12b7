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
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from rlcf.errors import UserError
from rlcf.inputs.places import expanded
from rlcf.run.parser import Parser


def option(
    default: Any,
    help: str,
    *,
    choices: Collection[str] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    group: str = "run",
    may_change: bool = False,
    path: bool = False,
) -> Any:
    """A field of a config: its default, one line of help, and what values it takes.

    group: its heading in the help; those of `OVER_DATASETS` are the command line's alone. may_change: a run may go on
    with another value, which does not change a sample's record beyond rounding. path: its value is a path, or a name
    that may be one.
    """
    limits = {"choices": choices, "at_least": at_least, "above": above, "at_most": at_most}
    metadata = {"help": help, "group": group, "may_change": may_change, "path": path, **limits}
    return field(default_factory=lambda: copy.copy(default), metadata=metadata)


data_option = partial(option, group="data")
model_option = partial(option, group="models")
method_option = partial(option, group="method")
adaptation_option = partial(option, group="adaptation")
beyond_option = partial(option, group="beyond the paper")
speed_option = partial(option, group="speed")

OVER_DATASETS = ("data", "evaluation")
"""Groups of settings that are about whole datasets and run folders. Python's classes answer one sample at a time and
have none of them."""


@dataclass
class Settings:
    """The settings of every command. A command adds its own by a dataclass that extends this one."""

    presets: ClassVar[Path | None] = None
    """Folder of the YAML presets that come along: --config takes their names."""

    data: str = data_option("", "folder that holds the datasets", path=True)
    output: str = data_option(
        "output/run",
        "run folder: config.yaml, records.jsonl per dataset, results.json, log.txt",
        may_change=True,
        path=True,
    )
    device: str = option("auto", "auto (CUDA when there is one), cpu, cuda or cuda:N")
    precision: str = option(
        "auto", "auto (fp16 autocast on CUDA, fp32 on CPU)", choices=("auto", "fp32", "bf16", "fp16")
    )
    deterministic: bool = option(
        False, "on CUDA use only kernels that give equal digits in each run, which are slower; on the CPU all are such"
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""

    def require_files(self) -> None:
        """Raises UserError for a file that the settings name and that is not there, with what brings it."""

    @property
    def bf16_flag(self) -> str:
        """The flag that asks for bf16, with its value; empty where none does."""
        return "--precision bf16" if self.precision == "bf16" else ""

    @property
    def takes_memory(self) -> tuple[str, ...]:
        """Names of the settings that take less memory when they are lower, the best to lower first."""
        return ()


AnyConfig = TypeVar("AnyConfig", bound=Settings)


def parse_config(kind: type[AnyConfig], argv: list[str] | None, description: str, epilog: str) -> AnyConfig:
    """The resolved config of a command line.

    Raises UserError naming the flag, or the preset and its key, that is unknown or has a value of the wrong kind, and
    for settings that contradict each other.
    """
    parser = Parser(usage="%(prog)s [--config FILE] [flags]", description=description, epilog=epilog)
    named = f", or the name of one in {kind.presets.parent.name}/{kind.presets.name}" if kind.presets else ""
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML preset{named}; its keys are the flags below with _ for -"
    )
    parser.add_argument("--gpu", metavar="N", help="short for --device cuda:N; 'cpu' for --device cpu")
    types_of = typing.get_type_hints(kind)
    names = dict.fromkeys(spec.metadata["group"] for spec in dataclasses.fields(kind))
    table = getattr(kind, "methods", {})
    width = max(map(len, table), default=0) + 2
    methods = "\n".join(f"{name:{width}}{method.told}" for name, method in table.items())
    groups = {name: parser.add_argument_group(name, methods if name == "method" else None) for name in names}
    for spec in dataclasses.fields(kind):
        _add_flag(groups[spec.metadata["group"]], spec, types_of[spec.name])
    given = vars(parser.parse_args(argv))
    preset, gpu = given.pop("config", None), given.pop("gpu", None)
    flags = {key: value for key, value in given.items() if value is not None}
    if gpu is not None:
        flags["device"] = gpu if gpu == "cpu" else f"cuda:{gpu}"
    settings = {**(read_preset(kind, find_preset(kind, preset)) if preset else {}), **flags}
    sources = {name: f"--{dashed(name)}" if name in flags else f"{preset}: {name}" for name in settings}
    return _checked(kind, settings, sources)


def make_config(kind: type[AnyConfig], settings: Mapping[str, Any]) -> AnyConfig:
    """The config of settings given in Python, checked as those of a command line.

    Raises UserError naming the setting that is unknown, of the wrong kind, or about whole datasets.
    """
    known = {spec.name: spec.metadata["group"] for spec in dataclasses.fields(kind)}
    for name in settings:
        if name not in known:
            raise UserError(_unknown_key(f"unknown setting '{name}'", name, list(known)))
        if known[name] in OVER_DATASETS:
            raise UserError(f"{name} is a setting of the command line, which runs over datasets")
    return _checked(kind, settings, {name: name for name in settings})


def _checked(kind: type[AnyConfig], settings: Mapping[str, Any], sources: Mapping[str, str]) -> AnyConfig:
    """A config of converted and checked settings. sources: the name of each setting in an error."""
    types_of = typing.get_type_hints(kind)
    values = {
        spec.name: _convert(settings[spec.name], types_of[spec.name], spec.metadata, sources[spec.name])
        for spec in dataclasses.fields(kind)
        if spec.name in settings
    }
    for spec in dataclasses.fields(kind):
        if spec.metadata["path"] and spec.name in values:
            values[spec.name] = _expanded(values[spec.name])
    config = kind(**values)
    if not config.output.strip():
        raise UserError(f"{sources['output']} is empty; give it the name of a folder")
    config.check()
    return config


def _expanded(value: Any) -> Any:
    """A path, or each of several, with the home folder for ~."""
    return [_expanded(part) for part in value] if isinstance(value, list) else expanded(value) if value else value


def _unknown_key(wrong: str, key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return wrong + (f"; did you mean '{near[0]}'?" if near else "")


def find_preset(kind: type[Settings], named: str) -> Path:
    """The file of a preset given by its path, or by its name in `kind.presets`. Raises UserError when there is none."""
    if Path(expanded(named)).is_file():
        return Path(expanded(named))
    if kind.presets is None:
        raise UserError(f"no preset {named}")
    file = kind.presets / f"{named.removesuffix('.yaml')}.yaml"
    if file.parent != kind.presets or not file.is_file():
        names = ", ".join(sorted(preset.stem for preset in kind.presets.glob("*.yaml")))
        raise UserError(f"no preset {named}; give a file, or one of {names}")
    return file


def read_preset(kind: type[Settings], path: str | Path) -> dict[str, Any]:
    """A YAML preset as a dict. Raises UserError for broken YAML or an unknown key."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        node = yaml.compose(text, yaml.SafeLoader)
        keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
        twice = next((key for i, key in enumerate(keys) if key in keys[:i]), None)
        if twice is not None:
            raise ValueError(f"found duplicate key {twice}")
        # What looks like a reference, such as ${x} in a path, is the path's own.
        preset = {} if node is None else yaml.safe_load(text)
    except Exception as error:  # YAML errors of several kinds, and files that are no text
        raise UserError(f"{path} is no readable YAML preset ({_first_line(error)})") from error
    if not isinstance(preset, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    known = [spec.name for spec in dataclasses.fields(kind)]
    for key in preset:
        if key not in known:
            raise UserError(_unknown_key(f"{path}: unknown key '{key}'", str(key), known))
    return {str(key): value for key, value in preset.items()}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def to_yaml(config: Settings) -> str:
    return str(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True, width=10**6))


def dashed(name: str) -> str:
    """A setting's name as a flag has it."""
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
        group.add_argument(f"--{dashed(spec.name)}", action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    shown = " ".join(map(str, default)) if isinstance(default, list) else default
    text += f" (default: {shown})" if shown not in (None, "") else ""
    several = {"nargs": "+"} if typing.get_origin(kind) is list else {}
    choices = spec.metadata["choices"]
    metavar = "{" + ",".join(choices) + "}" if choices else spec.name.rsplit("_", 1)[-1].upper()
    group.add_argument(f"--{dashed(spec.name)}", metavar=metavar, help=text, **several)


def _convert(value: Any, hint: Any, limits: Any, source: str) -> Any:
    kind, optional = _plain_type(hint)
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy or PyTorch
    value = list(value) if isinstance(value, tuple) else value
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
    return shlex.join(sys.argv) if argv is None else shlex.join([script, *argv])
