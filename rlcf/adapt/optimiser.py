"""AdamW as episodes need it: afresh for each sample, on the same parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
"""Decay of the two moments, torch's default."""


@dataclass(frozen=True)
class AdamW:
    """Hyper-parameters of the optimiser that each episode starts afresh."""

    lr: float
    weight_decay: float = 5e-4
    eps: float = 1e-8


class Moments(NamedTuple):
    """The state of AdamW for one parameter.

    first, second: moments, of the parameter's shape. steps: number of steps, a scalar tensor on its device.
    """

    first: Tensor
    second: Tensor
    steps: Tensor


class FusedAdamW:
    """AdamW (Loshchilov and Hutter, 2019) by torch's fused kernel; its numbers are those of torch.optim.AdamW.

    `reset` sets the moments back in place: making them anew costs more than a step. torch.optim.AdamW imports torch's
    compiler at its first step, which takes a second.
    """

    _step_supports_amp_scaling = True  # GradScaler sets `grad_scale` and `found_inf`, and deletes them after the step

    def __init__(self, parameters: Iterable[nn.Parameter], settings: AdamW) -> None:
        self.parameters, self.settings = list(parameters), settings
        self.param_groups: list[dict[str, Any]] = [{"params": self.parameters}]  # where GradScaler looks
        self.moments: dict[nn.Parameter, Moments] = {}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def reset(self) -> None:
        """Drop all gradients and set all moments and numbers of steps to 0."""
        self.zero_grad()
        tensors = [tensor for moments in self.moments.values() for tensor in moments]
        if tensors:
            torch._foreach_zero_(tensors)

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        kept = [self._moments_of(parameter) for parameter in moved]
        settings = self.settings
        adamw(
            list[Tensor](moved),
            [parameter.grad for parameter in moved if parameter.grad is not None],
            [moments.first for moments in kept],
            [moments.second for moments in kept],
            [],
            [moments.steps for moments in kept],
            fused=True,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            maximize=False,
        )

    def _moments_of(self, parameter: nn.Parameter) -> Moments:
        if parameter not in self.moments:
            steps = torch.zeros((), device=parameter.device)
            self.moments[parameter] = Moments(torch.zeros_like(parameter), torch.zeros_like(parameter), steps)
        return self.moments[parameter]
