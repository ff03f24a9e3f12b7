"""Setting a run up: its settings, its part of the samples, device and precision, and the models."""

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from rlcf.adapt.rewards import RewardFunction, ensemble_weights
from rlcf.clip.backbone import Backbone
from rlcf.clip.loading import load_clip
from rlcf.errors import UserError
from rlcf.light_imports import import_towers
from rlcf.run.config import make_config
from rlcf.run.device import resolve_device, resolve_precision
from rlcf.run.memory import keep_freed_memory
from rlcf.run.run import Run
from rlcf.run.settings import PY, Config
from rlcf.run.shard import Shard
from rlcf.start import started

AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True)
class Models:
    """The student, and the reward models that the method asks: none, one, or an ensemble."""

    student: Backbone
    rewards: list[Backbone | RewardFunction]

    @cached_property
    def digests(self) -> dict[str, str]:
        """A digest of each model, by what an error calls it."""
        clips = {f"weights of reward model {i}": reward for i, reward in enumerate(self.rewards, start=1)}
        named = {"weights of the student": self.student, **clips}
        return {name: clip.digest for name, clip in named.items() if isinstance(clip, Backbone)}


@dataclass(frozen=True)
class Setup(Generic[AnyConfig]):
    """The settings of a command line, and where its run computes."""

    config: AnyConfig
    shard: Shard
    device: torch.device
    precision: str
    functions: Mapping[str, RewardFunction] = field(default_factory=dict)
    """Reward functions given in Python, by their names in the settings."""

    @classmethod
    def of_settings(cls, kind: type[AnyConfig], settings: Mapping[str, Any]) -> "Setup[AnyConfig]":
        """Read settings given in Python. Raises UserError as `make_config`.

        `reward` may hold functions beside names.
        """
        given = settings.get("reward", [])
        rewards = list(given) if isinstance(given, list | tuple) else [given]
        names, functions = [], dict[str, RewardFunction]()
        for reward in rewards:
            if callable(reward):
                called = getattr(reward, "__name__", type(reward).__name__)
                name = f"{PY}{called}" if f"{PY}{called}" not in functions else f"{PY}{called}-{len(functions)}"
                functions[name] = RewardFunction(reward, called)
            names.append(name if callable(reward) else reward)
        if functions:
            settings = {**settings, "reward": names}
        config = make_config(kind, settings)
        device = resolve_device(config)
        return cls(config, Shard(), device, resolve_precision(config, device), functions)

    @classmethod
    def of_config(cls, config: AnyConfig) -> "Setup[AnyConfig]":
        """The setup of a command. Raises UserError for what this machine or torchrun cannot do.

        On a CPU the process of a command keeps the memory that it frees.
        """
        shard = Shard.from_environment()
        if config.remembers and shard.count > 1:
            flag = "--momentum" if config.momentum else f"--method {config.method}"
            raise UserError(f"{flag} carries state from sample to sample and cannot be sharded; start one process")
        device = resolve_device(config, shard.local_rank)
        if device.type == "cpu" and started():
            keep_freed_memory()
        return cls(config, shard, device, resolve_precision(config, device))

    def open_run(self) -> Run:
        """The run folder, for a `with` statement. Raises UserError as `Run`."""
        return Run(replace(self.config, device=self.device.type, precision=self.precision), self.shard)

    def load_models(self) -> Models:
        """Load the models that the method needs; see `load_models`."""
        return load_models(self.config, self.device, self.precision, self.functions)


def as_texts(texts: Any, called: str) -> list[str]:
    """The list of texts that was given in Python. Raises UserError for anything else. called: its name in that."""
    found = list(texts) if isinstance(texts, Iterable) and not isinstance(texts, str) else [texts]
    wrong = [text for text in found if not isinstance(text, str)]
    if wrong or isinstance(texts, str):
        raise UserError(f"{called} must be a list of texts, not {(wrong or found)[0]!r}")
    return found


def load_models(
    config: Config, device: torch.device, precision: str, functions: Mapping[str, RewardFunction] | None = None
) -> Models:
    """The student and the reward models that a method needs.

    functions: reward functions that are there already, by their names in `config.reward`. Raises UserError as
    `load_clip` and `import_reward`.
    """
    names = config.reward if config.asks_rewards else []
    # Functions first: a mistake in one is told before a CLIP is loaded.
    known = dict(functions or {})
    known |= {name: import_reward(name) for name in names if name.startswith(PY) and name not in known}
    student = load_clip(config.student, device, precision, config.clip_root)
    return Models(student, [known.get(name) or load_clip(name, device, precision, config.clip_root) for name in names])


def import_reward(name: str) -> RewardFunction:
    """The reward function "py:package.module:function"; modules of the working folder are found as well.

    Raises UserError when there is none of that name.
    """
    module, _, function = name.removeprefix(PY).partition(":")
    if not module or not function:
        raise UserError(f"--reward {name} names no function; write py:package.module:function")
    import_towers()  # the user's module may build any model of open_clip
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise UserError(f"--reward {name} cannot be imported ({type(error).__name__}: {error})") from error
    if not callable(found):
        raise UserError(f"--reward {name} is no function; its type is {type(found).__name__}")
    return RewardFunction(found, f"--reward {name}")


def reward_weights(config: Config, count: int) -> list[float]:
    """The weight of each of `count` reward models; they sum to 1."""
    return ensemble_weights(config.reward_weights or [1.0] * count, config.round_reward_weights)
