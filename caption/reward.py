"""The reward models: what they think of an image and its sampled captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlcf.adapt.rewards import CLIPSCORE_WEIGHT, clip_score, weighted_mean
from rlcf.clip.backbone import Backbone


@dataclass(frozen=True)
class Rewards:
    """One or several CLIPs. weights: one a model, used as they are."""

    clips: Sequence[Backbone]
    weights: Sequence[float]
    clipscore_weight: float = CLIPSCORE_WEIGHT

    @torch.no_grad()
    def see(self, views: Tensor) -> "Seen":
        """views: (N, 3, H, W) as made; each model gets them at its own resolution and normalisation, once a sample."""
        return Seen(self, [clip.encode_image(clip.prepare(views)) for clip in self.clips])


@dataclass(frozen=True)
class Seen:
    """Images as the reward models see them. image_features: (N, D) a model."""

    rewards: Rewards
    image_features: list[Tensor]
    text_features: dict[str, list[Tensor]] = field(default_factory=dict)
    """Of the captions that were sampled already, (D,) a model: a caption that repeats is encoded once."""

    def scores(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """CLIPScore of each image with its captions. texts: K of each of the N images. Returns (N, K)."""
        flat = [text for captions in texts for text in captions]
        new = [text for text in dict.fromkeys(flat) if text not in self.text_features]
        if new:
            encoded = [clip.encode_text(new) for clip in self.rewards.clips]
            self.text_features.update(zip(new, map(list, zip(*encoded, strict=True)), strict=True))
        weight, shape = self.rewards.clipscore_weight, (len(texts), -1)
        features = zip(*(self.text_features[text] for text in flat), strict=True)
        scores = [
            clip_score(images[:, None], torch.stack(captions).unflatten(0, shape), weight)
            for images, captions in zip(self.image_features, features, strict=True)
        ]
        return weighted_mean(scores, self.rewards.weights)
