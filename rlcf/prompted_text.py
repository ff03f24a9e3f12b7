"""The text tower driven by embeddings: prompts whose context tokens are vectors that can be tuned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlcf.errors import UserError


class TextTower:
    """open_clip's text transformer, entered at the token embeddings.

    A causal tower never looks past the pooled token, so sequences end at the longest prompt's end-of-text: the same
    features from 14 positions instead of 77. A tower without a causal mask (SigLIP) sees its full context.
    """

    def __init__(self, model: nn.Module) -> None:
        text: Any = getattr(model, "text", model)
        if not hasattr(text, "token_embedding") or getattr(text, "cls_emb", None) is not None:
            raise TypeError(f"{type(text).__name__} cannot be driven by embeddings")
        self.text = text
        prefix = "" if hasattr(text, "pool_type") else "text_"  # the tower on its own, or built into open_clip's CLIP
        self.pool_type: str = getattr(text, f"{prefix}pool_type")
        self.eos_id: int = getattr(text, f"{prefix}eos_id")
        self.causal = text.attn_mask is not None

    @property
    def width(self) -> int:
        return self.text.token_embedding.weight.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """tokens: (N, L). Returns (N, L, width)."""
        return self.text.token_embedding(tokens)

    def pooled_position(self, tokens: Tensor) -> Tensor:
        """Where each text's feature is read. tokens: (N, L). Returns (N,)."""
        if self.pool_type == "argmax":  # CLIP: the end-of-text token has the highest id
            return tokens.argmax(dim=-1)
        if self.pool_type == "eos":
            return (tokens == self.eos_id).int().argmax(dim=-1)
        position = tokens.shape[1] - 1 if self.pool_type == "last" else 0
        return torch.full((len(tokens),), position, device=tokens.device)

    def needed_length(self, tokens: Tensor) -> int:
        """Number of positions that the features depend on."""
        return int(self.pooled_position(tokens).max()) + 1 if self.causal else tokens.shape[1]

    def __call__(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """Features of prompts. embeddings: (N, L, width); tokens: (N, L), for the pooled position. Returns (N, D)."""
        text, length = self.text, self.needed_length(tokens)
        x = embeddings[:, :length] + text.positional_embedding[:length]
        x = text.transformer(x, attn_mask=text.attn_mask[:length, :length] if self.causal else None)
        x = text.ln_final(x[torch.arange(len(x), device=x.device), self.pooled_position(tokens)])
        if isinstance(text.text_projection, nn.Linear):
            return text.text_projection(x)
        return x if text.text_projection is None else x @ text.text_projection


def word_tokens(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text without start, end and padding."""
    if hasattr(tokenizer, "encode"):  # open_clip's SimpleTokenizer
        return list(tokenizer.encode(text))
    clean = getattr(tokenizer, "clean_fn", str)
    return list(tokenizer.tokenizer(clean(text), add_special_tokens=False).input_ids)


def prompt_text(context: str, classname: str, position: str = "end") -> str:
    """The words of a prompt. position: where the class name stands, "end", "middle" or "front".

    >>> prompt_text("a photo of a", "tench"), prompt_text("a photo of a", "tench", "middle")
    ('a photo of a tench.', 'a photo tench of a.')
    """
    words = context.split()
    before = {"end": len(words), "middle": len(words) // 2, "front": 0}[position]
    return " ".join([*words[:before], classname, *words[before:]]) + "."


@dataclass(frozen=True)
class PromptedText:
    """One prompt a class, sharing tunable context vectors: [SOS] context name . [EOT] (CoOp, IJCV 2022, eq. 2).

    tokens: (C, L) ids; frozen: (C, L, width) their embeddings; slots: (C, L) index into the context, -1 elsewhere.
    """

    tower: TextTower
    tokens: Tensor
    frozen: Tensor
    slots: Tensor

    def __call__(self, context: Tensor) -> Tensor:
        """context: (n_ctx, width). Returns (C, D) features, not normalised."""
        is_context = (self.slots >= 0).unsqueeze(-1)
        embeddings = torch.where(is_context, context[self.slots.clamp(min=0)], self.frozen)
        return self.tower(embeddings, self.tokens)


@torch.no_grad()
def prompt_classes(
    tower: TextTower, tokenizer: Any, classnames: Sequence[str], n_ctx: int, position: str, device: torch.device
) -> PromptedText:
    """Lay out a prompt with n_ctx context slots for every class.

    Raises UserError when a prompt does not fit into the tower's context.
    """
    # The slots are where two prompts differ whose context words do: right for any tokenizer that knows both words.
    texts, others = (
        [prompt_text(" ".join([word] * n_ctx), name, position) for name in classnames] for word in ("a", "the")
    )
    tokens = tokenizer(texts).to(device)
    differs = tokens != tokenizer(others).to(device)
    rows = zip(classnames, texts, tokens.tolist(), differs.sum(dim=1).tolist(), strict=True)
    for name, text, row, n_slots in rows:
        if n_slots != n_ctx or not _contains(row, word_tokens(tokenizer, text)):
            raise UserError(f"{n_ctx} context tokens and the class name '{name}' exceed {tokens.shape[1]} tokens")
    slots = torch.where(differs, differs.cumsum(dim=1) - 1, -1)
    length = tower.needed_length(tokens)
    tokens, slots = tokens[:, :length], slots[:, :length]
    return PromptedText(tower, tokens, tower.embed(tokens), slots)


def _contains(row: list[int], words: list[int]) -> bool:
    """Whether the words stand in the row without a gap: a tokenizer that cuts a text drops its last words."""
    return any(row[start : start + len(words)] == words for start in range(len(row) - len(words) + 1))
