"""The reward models: their scores of an image's views and its sampled classes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from classification.class_texts import class_texts
from classification.clip_model import class_features
from rlcf.adapt.rewards import CLIPSCORE_WEIGHT, ClipScorer, FunctionScorer, RewardFunction, Scorer, Seen
from rlcf.clip.backbone import Backbone


class Rewards:
    """One or several reward models that know the classes by "<prompt> <class name>.".

    weights: one a model, used as they are.
    """

    def __init__(
        self,
        models: Sequence[Backbone | RewardFunction],
        classnames: Sequence[str],
        prompt: str,
        weights: Sequence[float],
        clipscore_weight: float = CLIPSCORE_WEIGHT,
    ) -> None:
        self.models, self.weights, self.clipscore_weight = models, weights, clipscore_weight
        self.texts = [class_texts(name, prompt)[0] for name in classnames]
        self.class_features = {
            i: class_features(model, classnames, prompt)
            for i, model in enumerate(models)
            if isinstance(model, Backbone)
        }

    @torch.no_grad()
    def see(self, views: Tensor) -> Seen:
        """Let each model see the views once a sample, at its own resolution and normalisation.

        views: (N, V, 3, H, W) as made. Answers are class indices, (N, V, K).
        """
        return Seen([self._scorer(i, views) for i in range(len(self.models))], self.weights)

    def _scorer(self, i: int, views: Tensor) -> Scorer:
        model = self.models[i]
        if isinstance(model, RewardFunction):
            return FunctionScorer(model, views, self.texts)
        features = model.encode_image(model.prepare(views.flatten(0, 1))).unflatten(0, views.shape[:2])
        return ClipScorer(model, features, self.class_features[i], self.clipscore_weight)
