"""open_clip's text transformer as a function of token embeddings rather than of token ids."""

from typing import Any

import torch
from torch import Tensor, nn

from rlcf.clip.transformer import is_standard, pooled_block, run_block


class TextTower:
    """The text tower of an open_clip model, called with embeddings, so that some of them can be trained.

    The feature of a text is read at one position, its pooled position: the end-of-text token in CLIP, the last
    position in SigLIP. A causal tower does not look past it, so sequences are cut after the last pooled position of
    the batch: 14 positions instead of 77 give the same features. A tower without a causal mask computes its full
    context. If all blocks are CLIP's own, the last block computes only the pooled positions.

    Token ids may lie on the CPU, whatever the tower's device: positions and lengths are then known without waiting for
    a GPU.

    Raises TypeError for a model whose text tower cannot be called in this way.
    """

    def __init__(self, model: nn.Module) -> None:
        text: Any = getattr(model, "text", model)
        if not hasattr(text, "token_embedding") or getattr(text, "cls_emb", None) is not None:
            raise TypeError(f"{type(text).__name__} cannot be driven by embeddings")
        self.text = text
        prefix = "" if hasattr(text, "pool_type") else "text_"  # open_clip.CLIP has the tower's attributes itself
        self.pool_type: str = getattr(text, f"{prefix}pool_type")
        if getattr(text, "use_pad_mask", False) or self.pool_type == "none":
            raise TypeError("a text tower that masks its padding or does not pool cannot be driven by embeddings")
        self.eos_id: int = getattr(text, f"{prefix}eos_id")
        self.causal = text.attn_mask is not None
        self.standard = is_standard(text.transformer)

    @property
    def width(self) -> int:
        """Number of entries of a token's embedding."""
        return self.text.token_embedding.weight.shape[1]

    def embed(self, tokens: Tensor) -> Tensor:
        """The embeddings of token ids, without their positions. tokens: (N, L). Returns (N, L, width)."""
        return self.text.token_embedding(tokens.to(self.text.token_embedding.weight.device))

    def pooled_position(self, tokens: Tensor) -> Tensor:
        """The position at which each text's feature is read. tokens: (N, L). Returns (N,)."""
        if self.pool_type == "argmax":  # CLIP: the end-of-text token has the highest id
            return tokens.argmax(dim=-1)
        if self.pool_type == "eos":
            return (tokens == self.eos_id).int().argmax(dim=-1)
        position = tokens.shape[1] - 1 if self.pool_type == "last" else 0
        return torch.full((len(tokens),), position, device=tokens.device)

    def needed_length(self, tokens: Tensor) -> int:
        """Number of positions that the features depend on. tokens: (N, L)."""
        return int(self.pooled_position(tokens).max()) + 1 if self.causal else tokens.shape[1]

    def __call__(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        """The features of texts, not normalised.

        embeddings: (N, L, width), without positions. tokens: (N, L), from which the pooled positions are read.
        Returns (N, D).
        """
        text, length = self.text, self.needed_length(tokens)
        positions = self.pooled_position(tokens).to(embeddings.device)
        x = embeddings[:, :length] + text.positional_embedding[:length]  # (N, length, width)
        mask = text.attn_mask[:length, :length] if self.causal else None  # (length, length)
        if self.standard:
            *blocks, last = text.transformer.resblocks
            for block in blocks:
                x = run_block(block, x, mask)  # (N, length, width)
            return self.project(pooled_block(last, x, positions, self.causal))  # (N, D)
        x = text.transformer(x, attn_mask=mask)  # (N, length, width)
        return self.project(x[torch.arange(len(x), device=x.device), positions])  # (N, D)

    def project(self, x: Tensor) -> Tensor:
        """Applies the final layer norm and the projection. x: (..., width), pooled. Returns (..., D)."""
        projection, x = self.text.text_projection, self.text.ln_final(x)
        if isinstance(projection, nn.Linear):
            return projection(x)
        return x if projection is None else x @ projection


def try_tokenizer(tokenizer: Any) -> None:
    """Read a text in every way that texts are read. Raises many kinds of exceptions for a tokenizer that cannot."""
    tokenizer(["a photo"])  # one without padding fails
    word_tokens(tokenizer, "a photo")


def word_tokens(tokenizer: Any, text: str) -> list[int]:
    """The token ids of a text without start token, end token and padding."""
    if hasattr(tokenizer, "encode"):  # open_clip's SimpleTokenizer
        return list(tokenizer.encode(text))
    clean = getattr(tokenizer, "clean_fn", str)
    return list(tokenizer.tokenizer(clean(text), add_special_tokens=False).input_ids)
