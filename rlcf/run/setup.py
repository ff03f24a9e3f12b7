"""What a run begins with: settings, its part of the samples, device and precision, and the models."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch

from rlcf.adapt.rewards import RewardFunction, ensemble_weights, import_reward
from rlcf.clip.backbone import Backbone, load_clip
from rlcf.errors import UserError
from rlcf.run.config import PY, Config, parse_config, resolve_device, resolve_precision
from rlcf.run.records import Run
from rlcf.run.shard import Shard

AnyConfig = TypeVar("AnyConfig", bound=Config)


@dataclass(frozen=True)
class Models:
    """The student, and the reward models that the method asks: none, one, or an ensemble."""

    student: Backbone
    rewards: list[Backbone | RewardFunction]


@dataclass(frozen=True)
class Setup(Generic[AnyConfig]):
    """The settings of a command line, and where its run computes."""

    config: AnyConfig
    shard: Shard
    device: torch.device
    precision: str

    @classmethod
    def of_command(
        cls, kind: type[AnyConfig], argv: list[str] | None, description: str, epilog: str
    ) -> "Setup[AnyConfig]":
        """Read a command line. Raises UserError as `parse_config`, and for what this machine or torchrun cannot do."""
        config = parse_config(kind, argv, description, epilog)
        shard = Shard.from_environment()
        if config.remembers and shard.count > 1:
            flag = "--momentum" if config.momentum else "this --method"
            raise UserError(f"{flag} carries state from sample to sample and cannot be sharded; start one process")
        device = resolve_device(config, shard.local_rank)
        return cls(config, shard, device, resolve_precision(config, device))

    def open_run(self) -> Run:
        """The run folder. Raises UserError as `Run`."""
        return Run(replace(self.config, device=self.device.type, precision=self.precision), self.shard)

    def load_models(self) -> Models:
        """Load what the method needs."""
        return load_models(self.config, self.device, self.precision)


def load_models(config: Config, device: torch.device, precision: str) -> Models:
    """The student and the reward models that a method needs. Raises UserError as `load_clip` and `import_reward`."""
    names = config.reward if config.asks_rewards else []
    # Functions first: a mistake in one is told before a CLIP is loaded.
    functions = {name: import_reward(name) for name in names if name.startswith(PY)}
    student = load_clip(config.student, device, precision, config.clip_root)
    return Models(
        student, [functions.get(name) or load_clip(name, device, precision, config.clip_root) for name in names]
    )


def reward_weights(config: Config, count: int) -> list[float]:
    """The weight of each of `count` reward models; they sum to 1."""
    return ensemble_weights(config.reward_weights or [1.0] * count, config.round_reward_weights)
