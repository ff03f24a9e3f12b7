"""The reward models: their scores of a query with its sampled places in the gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlcf.adapt.rewards import CLIPSCORE_WEIGHT, ClipScorer, FunctionScorer, RewardFunction, Scorer, Seen
from rlcf.clip.backbone import Backbone
from rlcf.run.setup import Models


@dataclass(frozen=True)
class Query:
    """An image or a text that looks for its like in the gallery.

    sample: the image's evaluation view, (1, 3, H, W) as made, or the text; features: (D,) as each reward CLIP sees it,
    by the CLIP's place among the reward models.
    """

    sample: Any  # a Tensor or a str
    features: Mapping[int, Tensor]


@dataclass(frozen=True)
class Rewards:
    """One or several reward models that know the gallery.

    gallery: (G, D) features of each CLIP, by its place among the models; weights: one a model, used as they are; texts:
    the gallery's G texts, for reward functions.
    """

    models: Sequence[Backbone | RewardFunction]
    gallery: Mapping[int, Tensor]
    weights: Sequence[float]
    texts: Sequence[str] = ()
    clipscore_weight: float = CLIPSCORE_WEIGHT

    def see(self, query: Query) -> Seen:
        """The query, an image for a reward function, as the models see it.

        Answers are places in the gallery, (1, 1, K): of one query, one view.
        """
        return Seen([self._scorer(i, query) for i in range(len(self.models))], self.weights)

    def _scorer(self, i: int, query: Query) -> Scorer:
        model = self.models[i]
        if isinstance(model, Backbone):
            return ClipScorer(model, query.features[i].view(1, 1, -1), self.gallery[i], self.clipscore_weight)
        return FunctionScorer(model, query.sample.unsqueeze(0), self.texts)


def reward_clips(models: Models) -> dict[int, Backbone]:
    """The CLIPs among the reward models, each by its place; the others are functions."""
    return {i: model for i, model in enumerate(models.rewards) if isinstance(model, Backbone)}
