"""The reward models: what they think of an image and its sampled captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlcf.backbone import Backbone
from rlcf.reward import CLIPSCORE_WEIGHT, clip_score, weighted_mean


@dataclass(frozen=True)
class Rewards:
    """One or several CLIPs. weights: one a model, used as they are."""

    clips: Sequence[Backbone]
    weights: Sequence[float]
    clipscore_weight: float = CLIPSCORE_WEIGHT

    @torch.no_grad()
    def see(self, view: Tensor) -> "Seen":
        """view: (1, 3, H, W) as made; each model gets it at its own resolution and normalisation, once a sample."""
        return Seen(self, [clip.encode_image(clip.prepare(view)) for clip in self.clips])


@dataclass(frozen=True)
class Seen:
    """An image as the reward models see it. image_features: (1, D) a model."""

    rewards: Rewards
    image_features: list[Tensor]
    known: dict[str, Tensor] = field(default_factory=dict)
    """Scores of the captions that were sampled already: a caption that repeats is scored once."""

    def scores(self, texts: Sequence[str]) -> Tensor:
        """CLIPScore of the image with each caption. Returns (len(texts),)."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if new:
            models = zip(self.rewards.clips, self.image_features, strict=True)
            weight = self.rewards.clipscore_weight
            scores = weighted_mean(
                [clip_score(image, clip.encode_text(new), weight) for clip, image in models], self.rewards.weights
            )
            self.known.update(zip(new, scores, strict=True))
        return torch.stack([self.known[text] for text in texts])
