"""An episode: from the starting weights, a few steps on one sample, its answer, and the weights put back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

from rlcf.run.config import Config

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Momentum:
    """The momentum buffer of RLCF-S-M (RLCF, section 3.4).

    After each sample buffer = decay * buffer + (1 - decay) * adapted; every `every` samples the episodes' starting
    weights become (1 - weight) * original + weight * buffer.
    """

    decay: float = 0.9998
    every: int = 64
    weight: float = 1.0


@dataclass(frozen=True)
class AdamW:
    """Hyper-parameters of the optimiser that each episode starts afresh."""

    lr: float
    weight_decay: float = 5e-4
    eps: float = 1e-8


@dataclass
class Episodes:
    """Adapts `tuned` parameters to one sample at a time and restores them bit for bit.

    tuned: the parameters that the steps change; buffers: what forward passes may change (BatchNorm statistics).
    precision: "fp32", "bf16" or "fp16": what the loss was computed under; fp16 gradients are scaled.
    """

    tuned: dict[str, nn.Parameter]
    optimiser: AdamW
    steps: int
    buffers: dict[str, Tensor] = field(default_factory=dict)
    momentum: Momentum | None = None
    precision: str = "fp32"
    non_finite: int = 0
    """Episodes that were given up."""
    updates: int = 0
    """Episodes that have flowed into the momentum buffer."""

    @classmethod
    def from_config(
        cls, config: Config, tuned: dict[str, nn.Parameter], buffers: dict[str, Tensor], precision: str
    ) -> "Episodes":
        momentum = Momentum(config.momentum_decay, config.momentum_every, config.momentum_weight)
        optimiser = AdamW(config.lr, config.weight_decay, config.eps)
        return cls(tuned, optimiser, config.steps, buffers, momentum if config.momentum else None, precision)

    def __post_init__(self) -> None:
        self._state: dict[str, Tensor] = {**self.tuned, **self.buffers}
        self._start = {name: tensor.detach().clone() for name, tensor in self._state.items()}
        self._original = {k: v.clone() for k, v in self._start.items()} if self.momentum else self._start
        self._buffer = {k: v.clone() for k, v in self._start.items()} if self.momentum else {}
        self._adamw: torch.optim.AdamW | None = None
        self._since_update = 0
        self.at_original = True
        """Whether episodes start from the original weights: always, until a momentum buffer flows into them."""

    def begin(self, values: Mapping[str, Tensor]) -> None:
        """Let tuned parameters that belong to one sample alone start from its own values."""
        self._start.update(values)
        with torch.no_grad():
            for name, value in values.items():
                self._state[name].copy_(value)

    def run(
        self, loss: Callable[[int], Tensor], answer: Callable[[], Answer], skip_overflow: bool = True
    ) -> Answer | None:
        """Adapt, answer, restore.

        loss: from the step's number to a scalar with a graph; answer: called with the adapted weights, without a graph;
        skip_overflow: whether a step whose scaled fp16 gradients overflow is left out, or the episode is given up.
        Returns the answer, or None for an episode that was given up or whose loss or answer was not finite (counted in
        `non_finite`).
        """
        self._restore(self._start)
        try:
            if not self._adapt(loss, skip_overflow):
                self.non_finite += 1
                return None
            with torch.no_grad():
                result = answer()
            if not _finite(result):
                self.non_finite += 1
                return None
            self._update_momentum()
            return result
        finally:
            self._restore(self._start)

    @contextmanager
    def original_weights(self) -> Iterator[None]:
        """Within it the model is the one that was loaded, whatever the momentum buffer has become."""
        if not self.at_original:
            self._restore(self._original)
        try:
            yield
        finally:
            if not self.at_original:
                self._restore(self._start)

    def _adapt(self, loss: Callable[[int], Tensor], skip_overflow: bool) -> bool:
        optimiser = self._fresh_optimiser()
        device = next(iter(self.tuned.values())).device.type
        scaler = torch.amp.GradScaler(device, init_scale=1000.0, enabled=self.precision == "fp16")
        for step in range(self.steps):
            value = loss(step)
            if not torch.isfinite(value):
                return False
            scaler.scale(value).backward()
            scaler.step(optimiser)
            scale = 0.0 if skip_overflow else scaler.get_scale()  # on a GPU one waits for it
            scaler.update()
            optimiser.zero_grad(set_to_none=True)
            if not skip_overflow and scaler.get_scale() < scale:
                return False
        return True

    @torch.no_grad()
    def _fresh_optimiser(self) -> torch.optim.Optimizer:
        """AdamW as if it were new: its moments are set back in place, since making them anew costs more than a step."""
        if self._adamw is None:
            parameters, hyper = [p for p in self.tuned.values() if p.requires_grad], self.optimiser
            self._adamw = torch.optim.AdamW(
                parameters, lr=hyper.lr, weight_decay=hyper.weight_decay, eps=hyper.eps, fused=True
            )
        self._adamw.zero_grad(set_to_none=True)
        moments = [tensor for state in self._adamw.state.values() for tensor in state.values()]
        if moments:
            torch._foreach_zero_(moments)
        return self._adamw

    @torch.no_grad()
    def _restore(self, values: dict[str, Tensor]) -> None:
        torch._foreach_copy_(list(self._state.values()), [values[name] for name in self._state])

    @torch.no_grad()
    def _update_momentum(self) -> None:
        if self.momentum is None:
            return
        self.updates += 1
        for name, tensor in self._state.items():
            self._buffer[name] = _mix(self._buffer[name], tensor, self.momentum.decay)
        self._since_update += 1
        if self._since_update >= self.momentum.every:
            self._since_update = 0
            self.at_original = False
            for name in self._state:
                self._start[name] = _mix(self._original[name], self._buffer[name], 1.0 - self.momentum.weight)

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum buffer and the starting weights: what a run that continues needs. Empty without momentum."""
        if self.momentum is None:
            return {}
        counts = {"updates": self.updates, "since_update": self._since_update, "at_original": int(self.at_original)}
        counters = {name: torch.tensor(count) for name, count in counts.items()}
        buffer = {f"buffer.{name}": tensor for name, tensor in self._buffer.items()}
        return counters | buffer | {f"start.{name}": tensor for name, tensor in self._start.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()` of an earlier run over the same model."""
        if self.momentum is None or not state:
            return
        self.updates, self._since_update = int(state["updates"]), int(state["since_update"])
        self.at_original = bool(state["at_original"])
        for name, tensor in self._state.items():
            self._buffer[name] = state[f"buffer.{name}"].to(tensor)
            self._start[name] = state[f"start.{name}"].to(tensor)
        self._restore(self._start)


def _mix(first: Tensor, second: Tensor, share: float) -> Tensor:
    """share * first + (1 - share) * second; counters (integers) follow the second."""
    if not first.is_floating_point():
        return second.detach().clone()
    return share * first + (1.0 - share) * second.detach()


def _finite(result: object) -> bool:
    return not isinstance(result, Tensor) or bool(torch.isfinite(result).all())
