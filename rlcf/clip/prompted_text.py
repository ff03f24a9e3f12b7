"""Prompts that share context vectors which can be trained: one prompt a class, and their features."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlcf.clip.packed import Packed
from rlcf.clip.text_tower import TextTower, word_tokens
from rlcf.clip.transformer import finish
from rlcf.errors import UserError


def prompt_text(context: str, classname: str, position: str = "end") -> str:
    """The text of a prompt. position: the place of the class name, "end", "middle" or "front".

    >>> prompt_text("a photo of a", "tench"), prompt_text("a photo of a", "tench", "middle")
    ('a photo of a tench.', 'a photo tench of a.')
    """
    words = context.split()
    before = {"end": len(words), "middle": len(words) // 2, "front": 0}[position]
    return " ".join([*words[:before], classname, *words[before:]]) + "."


@dataclass(frozen=True)
class PromptedText:
    """The prompts of C classes, with n_ctx context vectors in common (CoOp, IJCV 2022, eq. 2).

    A prompt is [start] context name . [end of text]; the tokens of the context are its slots. When a prompt is
    encoded, the context vectors take the place of the slots' embeddings.

    tokens: (C, L) token ids, on the CPU; the ids in the slots are not used.
    frozen: (C, L, width) embeddings of `tokens`, without a graph, on the tower's device.
    slots: (C, L) number of the context vector at each position, 0 to n_ctx - 1; -1 at all other positions. On the CPU.
    """

    tower: TextTower
    tokens: Tensor
    frozen: Tensor
    slots: Tensor

    def __len__(self) -> int:
        """Number of classes, C."""
        return len(self.tokens)

    def __getitem__(self, classes: slice) -> "PromptedText":
        """The prompts of some of the classes."""
        return PromptedText(self.tower, self.tokens[classes], self.frozen[classes], self.slots[classes])

    @property
    def packed(self) -> bool:
        """True if the prompts are computed as `Packed`: for a causal tower of CLIP's own blocks."""
        return self.tower.causal and self.tower.standard

    @cached_property
    def layout(self) -> Packed:
        """The packed form of the prompts."""
        return Packed.of(self.tokens, self.slots, self.tower.pooled_position(self.tokens)).to(self.frozen.device)

    @property
    def n_tokens(self) -> int:
        """Number of tokens that the tower computes for one context."""
        return len(self.layout.rows) if self.packed else self.tokens.numel()

    def __call__(self, context: Tensor) -> Tensor:
        """The classes' features, not normalised, with a graph.

        context: (n_ctx, width), or (N, n_ctx, width) for N samples. Returns (C, D) or (N, C, D).
        """
        samples = context if context.dim() == 3 else context.unsqueeze(0)  # (N, n_ctx, width)
        features = self._packed(samples) if self.packed else self._each(samples)
        return features.view(*context.shape[:-2], len(self), -1)  # (C, D) or (N, C, D)

    def _each(self, context: Tensor) -> Tensor:
        """The features of each prompt as a padded sequence. context: (N, n_ctx, width). Returns (N * C, D)."""
        slots = self.slots.to(self.frozen.device)
        embeddings = _fill(self.frozen, slots, context).flatten(0, 1)  # (N * C, L, width)
        return self.tower(embeddings, self.tokens.repeat(len(context), 1))  # (N * C, D)

    def _packed(self, context: Tensor) -> Tensor:
        """The same features from the packed tokens. context: (N, n_ctx, width). Returns (N, C, D)."""
        layout, text = self.layout, self.tower.text
        x = _fill(*self._packed_prompts, context) + text.positional_embedding[layout.columns]  # (N, T, width)
        *blocks, last = text.transformer.resblocks
        for block in blocks:
            x = finish(block, x, layout.attend(block, x))  # (N, T, width)
        # Only the pooled tokens are read, so the last block computes them alone.
        pooled = finish(last, x[:, layout.ends], layout.attend_at_ends(last, x))  # (N, C, width)
        return self.tower.project(pooled)  # (N, C, D)

    @cached_property
    def _packed_prompts(self) -> tuple[Tensor, Tensor]:
        """`frozen` and `slots` of the packed tokens: (T, width) and (T,)."""
        rows, columns = self.layout.rows, self.layout.columns  # (T,), (T,)
        return self.frozen[rows, columns], self.slots.to(rows.device)[rows, columns]


def _fill(frozen: Tensor, slots: Tensor, context: Tensor) -> Tensor:
    """Embeddings with the context vectors in their slots, for each of N contexts.

    frozen: (*S, width); slots: (*S); context: (N, n_ctx, width). Returns (N, *S, width).
    """
    chosen = context.index_select(-2, slots.clamp(min=0).flatten())  # (N, prod(S), width)
    return torch.where((slots >= 0).unsqueeze(-1), chosen.unflatten(-2, slots.shape), frozen)  # (N, *S, width)


@torch.no_grad()
def prompt_classes(
    tower: TextTower, tokenizer: Any, classnames: Sequence[str], n_ctx: int, position: str
) -> PromptedText:
    """The prompts of classes, with n_ctx context slots each. position: as in `prompt_text`.

    Raises UserError naming a class whose prompt is longer than the tower's context.
    """
    # Two prompts that differ in their context words alone have different tokens in the slots and nowhere else. This
    # finds the slots with any tokenizer to which "a" and "the" are one token each.
    texts, others = (
        [prompt_text(" ".join([word] * n_ctx), name, position) for name in classnames] for word in ("a", "the")
    )
    tokens = tokenizer(texts)  # (C, full context)
    is_slot = tokens != tokenizer(others)  # (C, full context)
    prompts = zip(classnames, texts, tokens.tolist(), is_slot.sum(dim=1).tolist(), strict=True)
    for name, text, ids, n_slots in prompts:
        # A tokenizer cuts a long text at its end, in the slots or in the words after them.
        if n_slots != n_ctx or not _contains(ids, word_tokens(tokenizer, text)):
            raise UserError(f"{n_ctx} context tokens and the class name '{name}' exceed {tokens.shape[1]} tokens")
    slots = torch.where(is_slot, is_slot.cumsum(dim=1) - 1, -1)  # (C, full context)
    length = tower.needed_length(tokens)  # L
    tokens, slots = tokens[:, :length], slots[:, :length]  # (C, L), (C, L)
    return PromptedText(tower, tokens, tower.embed(tokens), slots)


def _contains(ids: list[int], words: list[int]) -> bool:
    """True if `words` occurs in `ids` as an uninterrupted run."""
    return any(ids[start : start + len(words)] == words for start in range(len(ids) - len(words) + 1))
