"""The reward models: what they think of an image and its sampled classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from classification.clip_model import class_features
from rlcf.adapt.rewards import CLIPSCORE_WEIGHT, clip_score, weighted_mean
from rlcf.clip.backbone import Backbone


class Rewards:
    """One or several CLIPs that know the classes by "<prompt> <class name>.".

    weights: one a model, used as they are.
    """

    def __init__(
        self,
        clips: Sequence[Backbone],
        classnames: Sequence[str],
        prompt: str,
        weights: Sequence[float],
        clipscore_weight: float = CLIPSCORE_WEIGHT,
    ) -> None:
        self.clips, self.weights, self.clipscore_weight = clips, weights, clipscore_weight
        self.class_features = [class_features(clip, classnames, prompt) for clip in clips]

    @torch.no_grad()
    def see(self, views: Tensor) -> "Seen":
        """views: (V, 3, H, W) as made; each model gets them at its own resolution and normalisation, once a sample.

        Shapes, here and below, are those of one sample; of several at once, N stands before them.
        """
        flat, shape = views.flatten(0, -4), views.shape[:-3]
        return Seen(self, [clip.encode_image(clip.prepare(flat)).unflatten(0, shape) for clip in self.clips])


@dataclass(frozen=True)
class Seen:
    """Views as the reward models see them. image_features: (V, D) a model."""

    rewards: Rewards
    image_features: list[Tensor]

    def scores(self, answers: Tensor) -> Tensor:
        """CLIPScore of each view with its sampled classes. answers: (V, K) class indices. Returns (V, K)."""
        models = zip(self.image_features, self.rewards.class_features, strict=True)
        weight = self.rewards.clipscore_weight
        return weighted_mean(
            [clip_score(image.unsqueeze(-2), text[answers], weight) for image, text in models], self.rewards.weights
        )

    def teacher_logits(self) -> Tensor:
        """(V, C), each model's logits with its own scale, weighted: the teacher of distillation."""
        models = zip(self.rewards.clips, self.image_features, self.rewards.class_features, strict=True)
        return weighted_mean([clip.logit_scale * image @ text.T for clip, image, text in models], self.rewards.weights)
