"""The text tower driven by embeddings: prompts whose context tokens are vectors that can be tuned."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from rlcf.clip.transformer import attend, finish, is_standard, pooled_block, project
from rlcf.errors import UserError


class TextTower:
    """open_clip's text transformer, entered at the token embeddings.

    A causal tower never looks past the pooled token, so sequences end at the longest prompt's end-of-text: the same
    features from 14 positions instead of 77. A tower without a causal mask (SigLIP) sees its full context. Where the
    blocks are CLIP's own, the last one computes the pooled positions alone.
    """

    def __init__(self, model: nn.Module) -> None:
        text: Any = getattr(model, "text", model)
        if not hasattr(text, "token_embedding") or getattr(text, "cls_emb", None) is not None:
            raise TypeError(f"{type(text).__name__} cannot be driven by embeddings")
        self.text = text
        prefix = "" if hasattr(text, "pool_type") else "text_"  # the tower on its own, or built into open_clip's CLIP
        self.pool_type: str = getattr(text, f"{prefix}pool_type")
        if getattr(text, "use_pad_mask", False) or self.pool_type == "none":
            raise TypeError("a text tower that masks its padding or does not pool cannot be driven by embeddings")
        self.eos_id: int = getattr(text, f"{prefix}eos_id")
        self.causal = text.attn_mask is not None
        self.standard = is_standard(text.transformer)

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
        text, length, positions = self.text, self.needed_length(tokens), self.pooled_position(tokens)
        x = embeddings[:, :length] + text.positional_embedding[:length]
        mask = text.attn_mask[:length, :length] if self.causal else None
        if self.standard:
            *blocks, last = text.transformer.resblocks
            for block in blocks:
                x = block(x, attn_mask=mask)
            return self.project(pooled_block(last, x, positions, self.causal))
        x = text.transformer(x, attn_mask=mask)
        return self.project(x[torch.arange(len(x), device=x.device), positions])

    def project(self, x: Tensor) -> Tensor:
        """Features of what stands at the pooled positions. x: (..., width). Returns (..., D)."""
        projection, x = self.text.text_projection, self.text.ln_final(x)
        if isinstance(projection, nn.Linear):
            return projection(x)
        return x if projection is None else x @ projection


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

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, classes: slice) -> "PromptedText":
        return PromptedText(self.tower, self.tokens[classes], self.frozen[classes], self.slots[classes])

    @property
    def packed(self) -> bool:
        """Whether the prompts share the start of their sequences; a tower that is not causal reads each on its own."""
        return self.tower.causal and self.tower.standard

    @cached_property
    def layout(self) -> "Packed":
        return Packed.of(self.tokens, self.slots, self.tower.pooled_position(self.tokens))

    @property
    def n_tokens(self) -> int:
        """How many tokens the tower computes."""
        return len(self.layout.rows) if self.packed else self.tokens.numel()

    def __call__(self, context: Tensor) -> Tensor:
        """context: (n_ctx, width), or (N, n_ctx, width) for N samples. Returns (C, D) or (N, C, D), not normalised."""
        samples = context if context.dim() == 3 else context.unsqueeze(0)
        features = self._packed(samples) if self.packed else self._each(samples)
        return features.view(*context.shape[:-2], len(self), -1)

    def _each(self, context: Tensor) -> Tensor:
        """context: (N, n_ctx, width). Returns (N * C, D)."""
        embeddings = self._embeddings(context, self.slots, self.frozen).flatten(0, 1)
        return self.tower(embeddings, self.tokens.repeat(len(context), 1))

    @cached_property
    def _packed_prompts(self) -> tuple[Tensor, Tensor]:
        """Slots (T,) and frozen embeddings (T, width) of the packed tokens."""
        rows, columns = self.layout.rows, self.layout.columns
        return self.slots[rows, columns], self.frozen[rows, columns]

    def _embeddings(self, context: Tensor, slots: Tensor, frozen: Tensor) -> Tensor:
        """context: (N, n_ctx, width); slots: (*S); frozen: (*S, width). Returns (N, *S, width)."""
        chosen = context.index_select(-2, slots.clamp(min=0).flatten())
        return torch.where((slots >= 0).unsqueeze(-1), chosen.unflatten(-2, slots.shape), frozen)

    def _packed(self, context: Tensor) -> Tensor:
        """context: (N, n_ctx, width). Returns (N, C, D)."""
        layout, text = self.layout, self.tower.text
        x = self._embeddings(context, *self._packed_prompts) + text.positional_embedding[layout.columns]
        *blocks, last = text.transformer.resblocks
        for block in blocks:
            x = finish(block, x, layout.attend(block, x))
        return self.tower.project(finish(last, x[:, layout.ends], layout.attend_at_ends(last, x)))


@dataclass(frozen=True)
class Packed:
    """Prompts of a causal tower without padding: the start that all share once, then each prompt's own tokens in a row.

    What a token becomes depends on the tokens before it alone, so the shared start is the same for all.
    rows, columns: (T,) where each packed token stands in (C, L); shared: P, length of the start; ends: (C,) packed
    places of the pooled tokens. Only for attention are prompts padded, in `groups` of like length; places: (T - P,) of
    the packed tokens among those of all groups, places_of_ends: (C,) of the prompts.
    """

    rows: Tensor
    columns: Tensor
    shared: int
    ends: Tensor
    groups: "list[Group]"
    places: Tensor
    places_of_ends: Tensor

    @classmethod
    def of(cls, tokens: Tensor, slots: Tensor, pooled: Tensor) -> "Packed":
        """tokens, slots: (C, L); pooled: (C,) position of each prompt's feature."""
        device = tokens.device
        alike = ((tokens == tokens[:1]) & (slots == slots[:1])).all(dim=0).long().cumprod(dim=0)
        shared = min(int(alike.sum()), int(pooled.min()))
        own = pooled + 1 - shared  # (C,) tokens of each prompt's own
        first = shared + own.cumsum(dim=0) - own  # (C,) packed place of its first one
        start = torch.arange(shared, device=device)
        row, column = (torch.arange(int(own.max()), device=device) < own.unsqueeze(-1)).nonzero(as_tuple=True)
        doubled = torch.ceil(torch.log2(own.float()))  # up to 1, 2, 4, 8, ... tokens
        groups = [Group.of(shared, first, own, doubled == size) for size in doubled.unique()]
        order = torch.cat([group.prompts for group in groups])
        packed = torch.cat([group.keys[:, shared:].flatten() for group in groups])
        real = torch.cat([group.holds[:, 0, 0, shared:].flatten() for group in groups])
        places = torch.empty(len(row), dtype=torch.long, device=device)
        places[packed[real] - shared] = real.nonzero().squeeze(-1)
        return cls(
            rows=torch.cat([torch.zeros_like(start), row]),
            columns=torch.cat([start, shared + column]),
            shared=shared,
            ends=first + own - 1,
            groups=groups,
            places=places,
            places_of_ends=order.argsort(),
        )

    def attend(self, block: Any, x: Tensor) -> Tensor:
        """What each token finds at those before it. x: (N, T, width). Returns (N, T, width)."""
        query, key, value = project(block, x)
        start = slice(self.shared)
        causal = torch.ones(self.shared, self.shared, dtype=torch.bool, device=x.device).tril()
        found = attend(block, query[:, start], key[:, start], value[:, start], causal)
        own = [
            attend(
                block,
                padded(query, group.keys[:, self.shared :]),
                padded(key, group.keys),
                padded(value, group.keys),
                group.may_look,
            )
            for group in self.groups
        ]
        return torch.cat([found, _joined(own, x).index_select(1, self.places)], dim=1)

    def attend_at_ends(self, block: Any, x: Tensor) -> Tensor:
        """The same for the pooled tokens alone. x: (N, T, width). Returns (N, C, width)."""
        query, key, value = project(block, x)
        found = [
            attend(
                block,
                padded(query, self.ends[group.prompts].unsqueeze(-1)),
                padded(key, group.keys),
                padded(value, group.keys),
                group.holds.repeat(len(x), 1, 1, 1),
            )
            for group in self.groups
        ]
        return _joined(found, x).index_select(1, self.places_of_ends)


@dataclass(frozen=True)
class Group:
    """Prompts of like length, padded to S tokens of their own. prompts: (C,) which of all.

    keys: (C, P + S) packed places of the tokens that theirs may look at, padding repeats the last; may_look:
    (S, P + S) which of them a token looks at; holds: (C, 1, 1, P + S) which are no padding.
    """

    prompts: Tensor
    keys: Tensor
    may_look: Tensor
    holds: Tensor

    @classmethod
    def of(cls, shared: int, first: Tensor, own: Tensor, member: Tensor) -> "Group":
        """first: packed place of each prompt's first own token; own: how many it has; member: which prompts."""
        first, own = first[member].unsqueeze(-1), own[member].unsqueeze(-1)
        size, device = int(own.max()), own.device
        start, step = torch.arange(shared, device=device), torch.arange(size, device=device)
        always = torch.ones(max(len(own), size), shared, dtype=torch.bool, device=device)
        return cls(
            prompts=member.nonzero().squeeze(-1),
            keys=torch.cat([start.expand(len(own), -1), first + torch.minimum(step, own - 1)], dim=1),
            may_look=torch.cat([always[:size], always.new_ones(size, size).tril()], dim=1),
            holds=torch.cat([always[: len(own)], step < own], dim=1)[:, None, None],
        )


def padded(x: Tensor, places: Tensor) -> Tensor:
    """x: (N, T, width); places: (C, M). Returns (N * C, M, width)."""
    return x.index_select(1, places.flatten()).view(-1, places.shape[1], x.shape[-1])


def _joined(parts: Sequence[Tensor], x: Tensor) -> Tensor:
    """What the groups found, one after the other. parts: (N * C, M, width) each. Returns (N, sum of C * M, width)."""
    return torch.cat([part.reshape(len(x), -1, x.shape[-1]) for part in parts], dim=1)


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
