"""Prompts of a causal text tower without padding and with their common start computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlcf.clip.transformer import attend, project


@dataclass(frozen=True)
class Packed:
    """The tokens of C prompts in one row: the start that all prompts have in common once, then the rest of each.

    In a causal tower a token depends on itself and the tokens before it. A start that all prompts have in common is
    therefore the same in each, and tokens after the pooled one are not needed. Linear layers, layer norms and MLPs
    treat tokens one by one, so they run on the row of T tokens as it is. Attention needs to know which tokens belong
    to one prompt; for it alone the prompts are padded, in groups of similar length.

    An example with "a photo of a cat." and "a photo of a sea lion.". `v0` to `v3` are the context vectors that stand
    for "a photo of a", `[` is the start-of-text token, `]` the end-of-text token, `_` padding.

        The prompts are a grid of C = 2 rows and L = 9 columns. The first P = 5 columns are the same in both.

            column       0      1      2      3      4      5      6      7      8
            prompt 0     [      v0     v1     v2     v3     cat    .      ]      _
            prompt 1     [      v0     v1     v2     v3     sea    lion   .      ]

        The packed row has T = 12 places. `rows` and `columns` give the place of each token in the grid.

            token        [      v0     v1     v2     v3     cat    .      ]      sea    lion   .      ]
            place        0      1      2      3      4      5      6      7      8      9      10     11
            rows         0      0      0      0      0      0      0      0      1      1      1      1
            columns      0      1      2      3      4      5      6      7      5      6      7      8

        `ends` are the places of the pooled tokens, which are the end-of-text tokens here.

            ends         7      11

        Own tokens are those after the start: 3 of prompt 0, 4 of prompt 1. A group holds prompts with 1, 2, 3 to 4,
        5 to 8, 9 to 16, ... of them, so both are in one group, padded to S = 4. `keys` are the places of all tokens
        of a prompt; a shorter prompt repeats its last place. `real` is 0 for these repetitions.

            keys   0     0      1      2      3      4      5      6      7      7
            keys   1     0      1      2      3      4      8      9      10     11
            real   0     1      1      1      1      1      1      1      1      0
            real   1     1      1      1      1      1      1      1      1      1

        The queries are the last S columns of `keys`. `may_look` lets query i look at the start and at own tokens 0
        to i. It is the same for all prompts: padding comes last, so no real query looks at it.

            query  0     1      1      1      1      1      1      0      0      0
            query  1     1      1      1      1      1      1      1      0      0
            query  2     1      1      1      1      1      1      1      1      0
            query  3     1      1      1      1      1      1      1      1      1

        Attention gives S results for each prompt. The results of all groups are laid end to end. `unpad` selects
        those of the own tokens, in the order of the packed row; here it leaves out result 3, which is padding.

            result       0      1      2      3      4      5      6      7
            of token     cat    .      ]      _      sea    lion   .      ]
            unpad        0      1      2      4      5      6      7

        In the last block only the pooled tokens are queries, and they look at all `real` keys. There is one result a
        prompt, in the order of the groups. `ungroup` selects them in the order of the prompts.

            ungroup      0      1

    Shapes: N samples, each with a context of its own; C prompts, L columns, T packed tokens; P tokens of the common
    start; in a group G prompts, S own tokens with padding.

    rows, columns: (T,) row and column in the (C, L) grid of each packed token.
    shared: P, length of the common start.
    ends: (C,) places of the pooled tokens.
    groups: the prompts by length, for attention.
    unpad: (T - P,) index of each own token among the results of all groups.
    ungroup: (C,) index of each prompt among the prompts of all groups.
    """

    rows: Tensor
    columns: Tensor
    shared: int
    ends: Tensor
    groups: "list[Group]"
    unpad: Tensor
    ungroup: Tensor

    @classmethod
    def of(cls, tokens: Tensor, slots: Tensor, pooled: Tensor) -> "Packed":
        """Packs prompts.

        tokens: (C, L) token ids. slots: (C, L) number of the context vector at each position, -1 elsewhere.
        pooled: (C,) column at which each prompt's feature is read.
        """
        same = ((tokens == tokens[:1]) & (slots == slots[:1])).all(dim=0)  # (L,) columns that are alike in all prompts
        alike = int(same.long().cumprod(dim=0).sum())  # number of them before the first that is not
        shared = min(alike, int(pooled.min()))  # P; the pooled token is always a prompt's own
        own = pooled + 1 - shared  # (C,) number of own tokens
        first = shared + own.cumsum(dim=0) - own  # (C,) place of the first own token

        start = torch.arange(shared, device=tokens.device)  # (P,)
        step = torch.arange(int(own.max()), device=tokens.device)  # (most own tokens,)
        row, column = (step < own.unsqueeze(-1)).nonzero(as_tuple=True)  # (T - P,), (T - P,)

        size_class = torch.ceil(torch.log2(own.float()))  # (C,) 0, 1, 2, 3, ... for up to 1, 2, 4, 8, ... own tokens
        members = [(size_class == size).nonzero().squeeze(-1) for size in size_class.unique()]  # (G,) each
        groups = [Group.of(prompts, shared, first[prompts], own[prompts]) for prompts in members]

        places = torch.cat([group.keys[:, shared:].flatten() for group in groups])  # (sum of G * S,) of each result
        real = torch.cat([group.real[:, shared:].flatten() for group in groups])  # (sum of G * S,)
        return cls(
            rows=torch.cat([torch.zeros_like(start), row]),  # (T,) the start is that of prompt 0
            columns=torch.cat([start, shared + column]),  # (T,)
            shared=shared,
            ends=first + own - 1,  # (C,)
            groups=groups,
            unpad=real.nonzero().squeeze(-1)[places[real].argsort()],  # (T - P,)
            ungroup=torch.cat(members).argsort(),  # (C,)
        )

    def to(self, device: torch.device) -> "Packed":
        """The same on another device."""
        groups = [Group(**{name: value.to(device) for name, value in vars(group).items()}) for group in self.groups]
        moved: dict[str, Any] = vars(self) | {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Packed(**(moved | {"groups": groups}))

    def attend(self, block: Any, x: Tensor) -> Tensor:
        """Causal self-attention within each prompt, before the output projection.

        x: (N, T, width), the block's input. Returns (N, T, width).
        """
        query, key, value = project(block, x)  # (N, T, width) each
        start = slice(self.shared)
        causal = torch.ones(self.shared, self.shared, dtype=torch.bool, device=x.device).tril()  # (P, P)
        of_start = attend(block, query[:, start], key[:, start], value[:, start], causal)  # (N, P, width)
        results = []
        for group in self.groups:
            result = attend(
                block,
                take(query, group.keys[:, self.shared :]),  # (N * G, S, width)
                take(key, group.keys),  # (N * G, P + S, width)
                take(value, group.keys),  # (N * G, P + S, width)
                group.may_look,  # (S, P + S)
            )  # (N * G, S, width)
            results.append(result)
        own = join(results, len(x)).index_select(1, self.unpad)  # (N, T - P, width)
        return torch.cat([of_start, own], dim=1)  # (N, T, width)

    def attend_at_ends(self, block: Any, x: Tensor) -> Tensor:
        """`attend` for the pooled tokens alone. x: (N, T, width). Returns (N, C, width)."""
        query, key, value = project(block, x)  # (N, T, width) each
        results = []
        for group in self.groups:
            result = attend(
                block,
                take(query, self.ends[group.prompts].unsqueeze(-1)),  # (N * G, 1, width)
                take(key, group.keys),  # (N * G, P + S, width)
                take(value, group.keys),  # (N * G, P + S, width)
                group.real[:, None, None].repeat(len(x), 1, 1, 1),  # (N * G, 1, 1, P + S)
            )  # (N * G, 1, width)
            results.append(result)
        return join(results, len(x)).index_select(1, self.ungroup)  # (N, C, width)


@dataclass(frozen=True)
class Group:
    """G prompts with a similar number of own tokens, padded to S of them. `Packed` draws an example.

    prompts: (G,) rows of the prompts in the (C, L) grid.
    keys: (G, P + S) places of each prompt's tokens in the packed row; padding repeats the last.
    may_look: (S, P + S) bool, True for the keys that a query looks at; the queries are the last S keys.
    real: (G, P + S) bool, False for padding.
    """

    prompts: Tensor
    keys: Tensor
    may_look: Tensor
    real: Tensor

    @classmethod
    def of(cls, prompts: Tensor, shared: int, first: Tensor, own: Tensor) -> "Group":
        """Pads prompts.

        prompts: (G,). shared: P. first: (G,) place of each prompt's first own token. own: (G,) number of own tokens.
        """
        first, length = first.unsqueeze(-1), shared + own.unsqueeze(-1)  # (G, 1), (G, 1)
        column = torch.arange(int(length.max()), device=own.device)  # (P + S,)
        filled = torch.minimum(column, length - 1)  # (G, P + S) the last column instead of padding
        return cls(
            prompts=prompts,
            keys=torch.where(column < shared, column, first + filled - shared),  # (G, P + S)
            may_look=column <= column[shared:].unsqueeze(-1),  # (S, P + S)
            real=column < length,  # (G, P + S)
        )


def take(x: Tensor, places: Tensor) -> Tensor:
    """The tokens at some places of each sample. x: (N, T, width); places: (G, M). Returns (N * G, M, width)."""
    return x.index_select(1, places.flatten()).view(-1, places.shape[1], x.shape[-1])  # (N * G, M, width)


def join(results: Sequence[Tensor], samples: int) -> Tensor:
    """The results of all groups, laid end to end for each sample.

    results: (N * G, M, width) of each group, N = samples. Returns (N, sum of G * M, width).
    """
    apart = [result.reshape(samples, -1, result.shape[-1]) for result in results]  # (N, G * M, width) each
    return torch.cat(apart, dim=1)  # (N, sum of G * M, width)
