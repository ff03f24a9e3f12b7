"""Linear layers by the faster kernel: oneDNN's on a CPU, elsewhere torch's own.

On a CPU torch computes them by MKL's product, also on one that MKL does not serve well (docs/speed.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LARGE = 2**19
"""Entries of a weight from which on oneDNN's kernel saves more than calling it from Python costs."""

FEW = 128
"""Rows up to which `weight_gradient` takes oneDNN's kernel for every layer."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`. x: (..., C); weight: (D, C); bias: (D,). Returns (..., D).

    Where oneDNN computes it, it has no second derivative.
    """
    if weight.numel() < LARGE or not has_kernel(x):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (x, weight, bias)):
        return _Linear.apply(x, weight, bias)
    return multiply(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C). Returns (..., D)."""
        return linear(x, self.weight, self.bias)


def use_linear(model: nn.Module) -> None:
    """Turns each `torch.nn.Linear` of a model into a `Linear`, in place. Weights and names stay as they are."""
    for layer in model.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Linear


def has_kernel(x: Tensor) -> bool:
    """True if oneDNN's kernel takes this input: rows of fp32 on a CPU, in a torch that was built with it."""
    return (
        x.dim() > 1
        and x.numel() > 0
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias by oneDNN, without a graph. Shapes as of `linear`."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    """`multiply` with a graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _of_bias = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return multiply(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if weight is not None:
            of_x = multiply(grad, weight.T)
        rows = grad.flatten(0, -2)
        if x is not None:
            of_weight = weight_gradient(rows, x.flatten(0, -2))
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(dim=0)
        return of_x, of_weight, of_bias


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """grad.T @ x. grad: (N, D); x: (N, C). Returns (D, C).

    oneDNN is the faster one for few rows and for layers that narrow, torch.mm for the others.
    """
    if len(x) < FEW or x.shape[1] > grad.shape[1]:
        return multiply(grad.T, x.T)
    return grad.T @ x
