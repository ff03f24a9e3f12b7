"""An episode: from the starting weights, a few steps on one sample, its answer, and the loaded weights put back."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from rlcf.adapt.optimiser import AdamW, FusedAdamW

if TYPE_CHECKING:
    from rlcf.run.settings import Config

Answer = TypeVar("Answer")
SCALE = 1000.0
"""Of fp16 losses at the start of an episode. It falls at an overflow; to grow takes 2000 steps, more than there are."""


@dataclass(frozen=True)
class Momentum:
    """The momentum buffer of RLCF-S-M (RLCF, section 3.4).

    After each sample buffer = decay * buffer + (1 - decay) * adapted; every `every` samples the episodes' starting
    weights become (1 - weight) * original + weight * buffer.
    """

    decay: float = 0.9998
    every: int = 64
    weight: float = 1.0


class Episodes:
    """Adapts `tuned` parameters to one sample at a time.

    Outside of an episode they hold the loaded weights, bit for bit.

    tuned: the parameters that the steps change; buffers: what forward passes may change (BatchNorm statistics).
    precision: "fp32", "bf16" or "fp16": what the loss is computed under; fp16 gradients are scaled.
    `with episodes:` forgets the momentum buffer when it is left.
    """

    def __init__(
        self,
        tuned: Mapping[str, nn.Parameter],
        optimiser: AdamW,
        steps: int,
        buffers: Mapping[str, Tensor] | None = None,
        momentum: Momentum | None = None,
        precision: str = "fp32",
    ) -> None:
        self.tuned, self.steps = dict(tuned), steps
        self.optimiser = FusedAdamW(self.tuned.values(), optimiser)
        self.momentum, self.precision = momentum, precision
        self._state: dict[str, Tensor] = {**tuned, **(buffers or {})}
        self._loaded = {name: tensor.detach().clone() for name, tensor in self._state.items()}
        self._numbers = itertools.count(1)  # of the sets of starting weights; the loaded ones are 0
        self.reset()

    @classmethod
    def from_config(
        cls, config: "Config", tuned: Mapping[str, nn.Parameter], buffers: Mapping[str, Tensor], precision: str
    ) -> "Episodes":
        momentum = Momentum(config.momentum_decay, config.momentum_every, config.momentum_weight)
        optimiser = AdamW(config.lr, config.weight_decay, config.eps)
        return cls(tuned, optimiser, config.steps, buffers, momentum if config.momentum else None, precision)

    def __enter__(self) -> "Episodes":
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what has flowed into the momentum buffer: episodes start from the loaded weights again."""
        self.updates = 0
        self._start, self._start_number = self._loaded, 0
        self._buffer = self._loaded if self.momentum else {}

    @contextmanager
    def episode(self, starts: Mapping[str, Tensor] | None = None) -> Iterator["Episode"]:
        """An episode: within it the weights are the starting ones, leaving it puts the loaded ones back.

        starts: values of tuned parameters that belong to this sample alone.
        """
        self._copy({**(self._start if self._start_number else {}), **(starts or {})})
        try:
            yield Episode(self, self._start_number)
        finally:
            self._copy(self._loaded)

    def run(
        self,
        loss: Callable[[int], Tensor],
        answer: Callable[[], Answer],
        starts: Mapping[str, Tensor] | None = None,
        skip_overflow: bool = True,
        over: Callable[[], bool] | None = None,
    ) -> Answer | None:
        """One whole episode; see `episode` and `Episode.adapt`."""
        with self.episode(starts) as episode:
            return episode.adapt(loss, answer, skip_overflow, over)

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        if values:
            torch._foreach_copy_([self._state[name] for name in values], list(values.values()))

    @torch.no_grad()
    def flow_into_momentum(self) -> None:
        """Update the momentum buffer with the current weights. Does nothing without momentum."""
        if self.momentum is None:
            return
        self.updates += 1
        decay, weight = self.momentum.decay, self.momentum.weight
        self._buffer = {name: _mix(self._buffer[name], tensor, decay) for name, tensor in self._state.items()}
        if self.updates % self.momentum.every == 0:
            self._start = {k: _mix(self._loaded[k], self._buffer[k], 1.0 - weight) for k in self._state}
            self._start_number = next(self._numbers)

    @property
    def every(self) -> int:
        """Number of samples between updates of the starting weights."""
        return self.momentum.every if self.momentum else 1

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum buffer and the starting weights: what a run that continues needs. Empty without momentum."""
        if self.momentum is None:
            return {}
        buffer = {f"buffer.{name}": tensor for name, tensor in self._buffer.items()}
        # Copies: before the first update both are the loaded tensors, which a safetensors file would not hold twice.
        start = {f"start.{name}": tensor.clone() for name, tensor in self._start.items()}
        return {"updates": torch.tensor(self.updates), **buffer, **start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()` of an earlier run over the same model. Raises ValueError for another one's."""
        if self.momentum is None or not state:
            return
        require_alike(state, self.state_dict())
        self.updates = int(state["updates"])
        self._buffer = {name: state[f"buffer.{name}"].to(tensor) for name, tensor in self._state.items()}
        if self.updates >= self.momentum.every:
            self._start = {name: state[f"start.{name}"].to(tensor) for name, tensor in self._state.items()}
            self._start_number = next(self._numbers)


class Episode:
    """One sample's episode, of `Episodes.episode`. start: the number of its starting weights, 0 for the loaded ones."""

    def __init__(self, episodes: Episodes, start: int) -> None:
        self._episodes, self.start = episodes, start

    def adapt(
        self,
        loss: Callable[[int], Tensor],
        answer: Callable[[], Answer],
        skip_overflow: bool = True,
        over: Callable[[], bool] | None = None,
    ) -> Answer | None:
        """Take the steps and answer; adapted weights flow into the momentum buffer, where there is one.

        loss: from the step's number to a scalar with a graph; answer: called with the adapted weights, without a graph;
        skip_overflow: whether a step whose scaled fp16 gradients overflow is left out, or the episode is given up;
        over: asked after each step, True ends the episode; None: it takes all its steps.
        Returns the answer, or None for an episode that was given up or whose loss or answer was not finite.
        """
        losses = self._take_steps(loss, skip_overflow, over)
        if losses is None:
            return None
        with torch.no_grad():
            result = answer()
        if not all_finite([*losses, *([result] if isinstance(result, Tensor) else [])]):
            return None
        self._episodes.flow_into_momentum()
        return result

    @torch.enable_grad()
    def _take_steps(
        self, loss: Callable[[int], Tensor], skip_overflow: bool, over: Callable[[], bool] | None
    ) -> list[Tensor] | None:
        """The losses, detached, or None where fp16 gradients overflowed and that is no step to leave out.

        Nothing is read off the device between two steps, unless `over` does it, so that a GPU never waits.
        """
        optimiser, losses = self._episodes.optimiser, list[Tensor]()
        optimiser.reset()
        device = next(iter(self._episodes.tuned.values())).device.type
        scaler = torch.amp.GradScaler(device, init_scale=SCALE, enabled=self._episodes.precision == "fp16")
        for step in range(self._episodes.steps):
            value = loss(step)
            losses.append(value.detach())
            scaler.scale(value).backward()
            scaler.step(optimiser)  # type: ignore[arg-type]  # it has what a GradScaler needs of an optimiser
            scaler.update()
            optimiser.zero_grad()
            if over is not None and over():
                break
        overflowed = not skip_overflow and scaler.is_enabled() and scaler.get_scale() < SCALE
        return None if overflowed else losses


def require_alike(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless a state has the tensors of another one: their names, shapes and types.

    Only where the other one's numbers are infinite may its own be infinite.
    """
    if state.keys() != like.keys():
        raise ValueError("other tensors")
    for name, tensor in like.items():
        own = state[name]
        if own.shape != tensor.shape or own.dtype != tensor.dtype:
            raise ValueError(f"{name} has another shape or type")
        if not (own.isfinite() | (own == tensor.cpu().where(tensor.cpu().isinf(), 0))).all():
            raise ValueError(f"{name} is not finite")


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """True if no element is infinite or not a number. A GPU is waited for once."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def _mix(first: Tensor, second: Tensor, share: float) -> Tensor:
    """share * first + (1 - share) * second; the second where they are integers (counters of BatchNorm layers)."""
    if not first.is_floating_point():
        return second.detach().clone()
    return share * first + (1.0 - share) * second.detach()
