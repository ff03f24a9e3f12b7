"""The reward models: what they think of a query and its sampled answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rlcf.adapt.rewards import CLIPSCORE_WEIGHT, clip_score, weighted_mean
from rlcf.clip.backbone import Backbone


@dataclass(frozen=True)
class Rewards:
    """One or several CLIPs that have seen the queries and the gallery.

    queries: (Q, D) features a model; row: of a query in them; gallery: (G, D) features a model; weights: one a model,
    used as they are.
    """

    clips: Sequence[Backbone]
    queries: Sequence[Tensor]
    row: Mapping[int, int]
    gallery: Sequence[Tensor]
    weights: Sequence[float]
    clipscore_weight: float = CLIPSCORE_WEIGHT

    def see(self, query: int) -> "Seen":
        """query: its index in the dataset."""
        return Seen(self, [features[self.row[query]].unsqueeze(0) for features in self.queries])


@dataclass(frozen=True)
class Seen:
    """A query as the reward models see it. features: (1, D) a model."""

    rewards: Rewards
    features: list[Tensor]

    def scores(self, answers: Tensor) -> Tensor:
        """CLIPScore of the query with its sampled answers. answers: (1, K) places in the gallery. Returns (1, K)."""
        models = zip(self.features, self.rewards.gallery, strict=True)
        weight = self.rewards.clipscore_weight
        return weighted_mean(
            [clip_score(query.unsqueeze(1), gallery[answers], weight) for query, gallery in models],
            self.rewards.weights,
        )

    @cached_property
    @torch.no_grad()
    def teacher_logits(self) -> Tensor:
        """(1, G), each model's logits with its own scale, weighted: the teacher of distillation."""
        models = zip(self.rewards.clips, self.features, self.rewards.gallery, strict=True)
        return weighted_mean(
            [clip.logit_scale * query @ gallery.T for clip, query, gallery in models], self.rewards.weights
        )
