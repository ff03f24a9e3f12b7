"""Class features as a function of the context that is tuned: the starting ones kept, the others in bounded memory."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rlcf.clip.backbone import Backbone
from rlcf.clip.prompted_text import PromptedText
from rlcf.run.memory import free_memory

FLOATS_PER_TOKEN = 28
"""Widths of the tower that a token's graph holds in a block: 19.3 measured on ViT-B/16's, more with a long context."""
SHARE_OF_FREE_MEMORY = 1 / 8
"""Of what is free when a run begins, for the graphs of the texts; two may live at once."""


def default_chunk(prompts: PromptedText, samples: int, device: torch.device) -> int:
    """The number of classes whose graphs fit into `SHARE_OF_FREE_MEMORY`."""
    blocks = len(prompts.tower.text.transformer.resblocks) if prompts.tower.standard else 24
    per_class = 4 * FLOATS_PER_TOKEN * prompts.tower.width * blocks * samples * prompts.n_tokens / len(prompts)
    return max(1, int(SHARE_OF_FREE_MEMORY * free_memory(device) / (2 * per_class)))


class ClassFeatures:
    """The classes' unit-length features for a context, differentiable in it.

    A step's gradient is taken with respect to the features first, and from there with respect to the context, `chunk`
    classes at a time: the same gradient, in the memory of one chunk's graph. The features of the contexts that episodes
    start from are computed once, and where one chunk holds all classes their graph is kept as well. `start` numbers
    these contexts: 0 for the one that was loaded, another number for each that a momentum buffer makes.

    Contexts are (n_ctx, width), or (N, n_ctx, width) of N samples; features (C, D) or (N, C, D).
    """

    def __init__(self, clip: Backbone, prompts: PromptedText, chunk: int) -> None:
        self.clip = clip
        starts = range(0, len(prompts), chunk)
        self.chunks = [prompts] if len(starts) == 1 else [prompts[i : i + chunk] for i in starts]
        self._starts: dict[int, _Start] = {}

    def __call__(self, context: Tensor, start: int | None = None) -> Tensor:
        """Features with a graph. start: the number of this context where episodes start from it."""
        if start is None and len(self.chunks) == 1:
            return self._compute(self.chunks[0], context)
        return _InChunks.apply(context, self, None if start is None else self._remember(context, start))

    @torch.no_grad()
    def evaluate(self, context: Tensor) -> Tensor:
        """Features without a graph."""
        return torch.cat([self._compute(prompts, context) for prompts in self.chunks], dim=-2)

    def at_start(self, context: Tensor, start: int) -> Tensor:
        """Features without a graph of the context number `start`, computed once."""
        return self._remember(context, start).features

    def _remember(self, context: Tensor, start: int) -> "_Start":
        """Two starts are kept: the loaded one and the latest."""
        if start not in self._starts:
            kept = {number: known for number, known in self._starts.items() if number == 0}
            self._starts = kept | {start: _Start(context.detach().clone(), self.evaluate(context))}
        return self._starts[start]

    def _compute(self, prompts: PromptedText, context: Tensor) -> Tensor:
        with self.clip.autocast():
            features = prompts(context)
        return F.normalize(features.float(), dim=-1)

    def _gradient(self, context: Tensor, start: "_Start | None", gradient: Tensor) -> Tensor:
        """From the features' gradient, (..., C, D), to the context's."""
        if start is not None and len(self.chunks) == 1:
            if start.graph is None:
                leaf = start.context.clone().requires_grad_(True)
                start.graph = leaf, self._compute(self.chunks[0], leaf)
            leaf, features = start.graph
            return torch.autograd.grad(features, leaf, gradient, retain_graph=True)[0]
        leaf, total = context.detach().clone().requires_grad_(True), torch.zeros_like(context)
        for prompts, part in zip(
            self.chunks, gradient.split([len(prompts) for prompts in self.chunks], dim=-2), strict=True
        ):
            total += torch.autograd.grad(self._compute(prompts, leaf), leaf, part)[0]
        return total


@dataclass
class _Start:
    """A context that episodes start from; graph: a copy of it, and its features with their graph."""

    context: Tensor
    features: Tensor
    graph: tuple[Tensor, Tensor] | None = None


class _InChunks(torch.autograd.Function):
    """Features without a graph; in the backward pass each chunk's graph is made and used up."""

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
