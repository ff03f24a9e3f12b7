"""The reward models: their scores of an image's sampled captions."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlcf.adapt.rewards import CLIPSCORE_WEIGHT, FunctionScorer, RewardFunction, Scorer, Seen, clip_score
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError


@dataclass(frozen=True)
class Rewards:
    """One or several reward models. weights: one a model, used as they are."""

    models: Sequence[Backbone | RewardFunction]
    weights: Sequence[float]
    clipscore_weight: float = CLIPSCORE_WEIGHT

    @torch.no_grad()
    def see(self, views: Tensor) -> Seen:
        """Let each model see the images once a sample, at its own resolution and normalisation.

        views: (N, 3, H, W) as made. Answers are texts, K of each image: their scores are (N, K).
        """
        return Seen([self._scorer(model, views) for model in self.models], self.weights)

    def _scorer(self, model: Backbone | RewardFunction, views: Tensor) -> Scorer:
        if isinstance(model, RewardFunction):
            return FunctionScorer(model, views)
        return CaptionScorer(model, model.encode_image(model.prepare(views)), self.clipscore_weight)


@dataclass(frozen=True)
class CaptionScorer:
    """A CLIP that has seen images whose answers are captions. images: (N, D) features, unit length."""

    clip: Backbone
    images: Tensor
    weight: float = CLIPSCORE_WEIGHT
    encoded: dict[str, Tensor] = field(default_factory=dict)
    """Features of the captions that were scored already, (D,): a caption that repeats is encoded once."""

    def scores(self, answers: Sequence[Sequence[str]]) -> Tensor:
        """CLIPScore of each image with its captions. answers: K of each of the N images. Returns (N, K)."""
        texts = [text for captions in answers for text in captions]
        new = [text for text in dict.fromkeys(texts) if text not in self.encoded]
        if new:
            self.encoded.update(zip(new, self.clip.encode_text(new), strict=True))
        features = torch.stack([self.encoded[text] for text in texts]).unflatten(0, (len(answers), -1))
        return clip_score(self.images[:, None], features, self.weight)

    @property
    def logits(self) -> Tensor:
        """Raises UserError: captions are no fixed list."""
        raise UserError(f"{self.clip.name} has no logits over captions; use a method that asks for scores")
