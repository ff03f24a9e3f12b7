"""Class features as a differentiable function of context vectors, in bounded memory."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlcf.clip.backbone import Backbone
from rlcf.clip.prompted_text import PromptedText
from rlcf.run.memory import free_memory

FLOATS_PER_TOKEN = 28
"""Floats that autograd keeps for a token in a block, as a multiple of the tower's width.

Measured: 19.3 for ViT-B/16's text tower, more with a long context.
"""
SHARE_OF_FREE_MEMORY = 1 / 8
"""Share of the memory that is free when a run begins, for the graphs of the prompts. Two graphs may exist at once."""


def default_chunk(prompts: PromptedText, samples: int, device: torch.device) -> int:
    """The number of classes whose graphs fit into `SHARE_OF_FREE_MEMORY`, at least 1.

    samples: N, the number of contexts that are computed together.
    """
    blocks = len(prompts.tower.text.transformer.resblocks) if prompts.tower.standard else 24
    per_class = 4 * FLOATS_PER_TOKEN * prompts.tower.width * blocks * samples * prompts.n_tokens / len(prompts)
    return max(1, int(SHARE_OF_FREE_MEMORY * free_memory(device) / (2 * per_class)))


class ClassFeatures:
    """The features of C classes as a differentiable function of the context. They have unit length.

    A context is (n_ctx, width), its features are (C, D). N contexts are (N, n_ctx, width), their features (N, C, D).

    The backward pass needs the memory of `chunk` classes alone: the forward pass keeps no graph, and the backward pass
    computes the graph of one chunk after the other and frees it. The gradient is the same.

    The features of a context from which episodes start are computed once and kept. If one chunk holds all classes,
    their graph is kept too. `start` is the number of such a context: 0 for the loaded one, another number for each
    that a momentum buffer makes. At most two are kept.
    """

    def __init__(self, clip: Backbone, prompts: PromptedText, chunk: int) -> None:
        self.clip = clip
        starts = range(0, len(prompts), chunk)
        self.chunks = [prompts] if len(starts) == 1 else [prompts[i : i + chunk] for i in starts]
        self._starts: dict[int, _Start] = {}

    def __call__(self, context: Tensor, start: int | None = None) -> Tensor:
        """The features of a context, with a graph.

        start: number of the context if episodes start from it, else None.
        """
        if start is None and len(self.chunks) == 1:
            return self._compute(self.chunks[0], context)
        return _InChunks.apply(context, self, None if start is None else self._remember(context, start))

    @torch.no_grad()
    def evaluate(self, context: Tensor) -> Tensor:
        """The features of a context, without a graph."""
        return torch.cat([self._compute(prompts, context) for prompts in self.chunks], dim=-2)

    def at_start(self, context: Tensor, start: int) -> Tensor:
        """The features of the context with the number `start`, without a graph. They are computed at the first call."""
        return self._remember(context, start).features

    def _remember(self, context: Tensor, start: int) -> "_Start":
        """The kept start of this number. A new one replaces all others but number 0."""
        if start not in self._starts:
            kept = {number: known for number, known in self._starts.items() if number == 0}
            self._starts = kept | {start: _Start(context.detach().clone(), self.evaluate(context))}
        return self._starts[start]

    def _compute(self, prompts: PromptedText, context: Tensor) -> Tensor:
        """The unit-length features of one chunk."""
        with self.clip.autocast():
            features = prompts(context)
        return F.normalize(features.float(), dim=-1)

    def _gradient(self, context: Tensor, start: "_Start | None", gradient: Tensor) -> Tensor:
        """The gradient with respect to the context, given that with respect to the features.

        context: (..., n_ctx, width). gradient: (..., C, D). Returns (..., n_ctx, width).
        """
        if start is not None and len(self.chunks) == 1:
            if start.graph is None:
                leaf = start.context.clone().requires_grad_(True)
                start.graph = leaf, self._compute(self.chunks[0], leaf)
            leaf, features = start.graph
            return torch.autograd.grad(features, leaf, gradient, retain_graph=True)[0]  # (..., n_ctx, width)
        leaf, total = context.detach().clone().requires_grad_(True), torch.zeros_like(context)
        for prompts, part in zip(
            self.chunks, gradient.split([len(prompts) for prompts in self.chunks], dim=-2), strict=True
        ):
            total += torch.autograd.grad(self._compute(prompts, leaf), leaf, part)[0]
        return total


@dataclass
class _Start:
    """A context from which episodes start, and its features.

    graph: a leaf with the values of the context, and the features as a function of it; None until it is needed.
    """

    context: Tensor
    features: Tensor
    graph: tuple[Tensor, Tensor] | None = None


class _InChunks(torch.autograd.Function):
    """`ClassFeatures` as an autograd function. The backward pass computes each chunk's graph and frees it."""

    @staticmethod
    def forward(ctx: Any, context: Tensor, classes: ClassFeatures, start: _Start | None) -> Tensor:
        ctx.save_for_backward(context)
        ctx.classes, ctx.start = classes, start
        return start.features.clone() if start else classes.evaluate(context)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (context,) = ctx.saved_tensors
        with torch.enable_grad():
            return ctx.classes._gradient(context, ctx.start, gradient), None, None
