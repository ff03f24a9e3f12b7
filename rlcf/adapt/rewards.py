"""Rewards: CLIPScore, functions of the user's own, their weighted mean, and advantages."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from rlcf.adapt.augment import to_image
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError

CLIPSCORE_WEIGHT = 2.5
LEFT_OUT = -math.inf
"""The score, and the advantage, of an answer that does not count."""


def clip_score(image_features: Tensor, text_features: Tensor, weight: float = CLIPSCORE_WEIGHT) -> Tensor:
    """CLIPScore = weight * max(cos(image, text), 0) (Hessel et al., EMNLP 2021, eq. 1).

    image_features, text_features: (..., D), unit length, broadcastable. Returns (...).

    >>> clip_score(torch.tensor([1.0, 0.0]), torch.tensor([[0.6, 0.8], [-1.0, 0.0]])).tolist()
    [1.5, 0.0]
    """
    return weight * (image_features * text_features).sum(dim=-1).clamp(min=0)


def weighted_mean(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The reward of an ensemble: sum of weight * score over the reward models (RLCF, section 3.4).

    scores: one tensor a model, equal shapes; weights: one a model, used as they are; one of weight 0 does not count.
    """
    weighted = (weight * score for weight, score in zip(weights, scores, strict=True) if weight)
    return sum(weighted, torch.zeros_like(scores[0]))


def ensemble_weights(weights: Sequence[float], rounded: bool = False) -> list[float]:
    """Weights that sum to 1. `rounded` reproduces the published run: two digits, 10:3:5 -> 0.56, 0.17, 0.28."""
    shares = [weight / sum(weights) for weight in weights]
    return [round(share, 2) for share in shares] if rounded else shares


def advantages(scores: Tensor, baseline: str = "answers", divide_by_std: bool = False) -> Tensor:
    """Score minus baseline (RLCF, eq. 4).

    scores: (V, K) of K answers for each of V views (or images, or texts); `LEFT_OUT` for an answer that does not count.
    baseline: "answers" - the mean over the K answers of one view; "all" - the mean over all V * K; "none" - 0.
    divide_by_std: also divide by the unbiased standard deviation (+ 1e-5) over the same answers.
    A single answer has no baseline: its advantage is its score. Returns (V, K).

    >>> [round(x, 4) for x in advantages(torch.tensor([[0.9, 0.6, 0.3]]))[0].tolist()]
    [0.3, 0.0, -0.3]
    >>> [round(x, 4) for x in advantages(torch.tensor([[0.9, LEFT_OUT, 0.3]]))[0].tolist()]
    [0.3, -inf, -0.3]
    """
    dims = {"answers": (-1,), "all": (-2, -1), "none": ()}[baseline]
    if not dims or torch.Size(scores.shape[dim] for dim in dims).numel() == 1:
        return scores
    counted = scores != LEFT_OUT
    count = counted.sum(dim=dims, keepdim=True)
    mean = torch.where(counted, scores, 0).sum(dim=dims, keepdim=True) / count.clamp(min=1)
    centred = torch.where(counted, scores - mean, 0)
    if divide_by_std:
        variance = centred.square().sum(dim=dims, keepdim=True) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + 1e-5)
    return torch.where(counted, centred, LEFT_OUT)


class Scorer(Protocol):
    """The scores that one reward model gives the answers of one sample."""

    def scores(self, answers: Any) -> Tensor:
        """Rewards of the sample's answers. answers: K for each of V views. Returns (V, K)."""

    @property
    def logits(self) -> Tensor:
        """(V, C) over the fixed list of answers, with the model's own scale. Raises UserError where there is none."""


@dataclass(frozen=True)
class Seen:
    """A sample as the reward models see it, in every task.

    scorers: one a reward model; weights: one each, used as they are.
    """

    scorers: Sequence[Scorer]
    weights: Sequence[float]

    @torch.no_grad()
    def scores(self, answers: Any) -> Tensor:
        """The ensemble's rewards. answers: K for each of V views: (V, K) indices, or texts. Returns (V, K)."""
        return weighted_mean([scorer.scores(answers) for scorer in self.scorers], self.weights)

    @cached_property
    @torch.no_grad()
    def teacher_logits(self) -> Tensor:
        """(V, C), the models' logits, weighted: the teacher of distillation."""
        return weighted_mean([scorer.logits for scorer in self.scorers], self.weights)


@dataclass(frozen=True)
class ClipScorer:
    """A CLIP that has seen a sample whose answers stand in a fixed list.

    sample: (V, D) features; answers: (C, D) features of the list; both unit length.
    """

    clip: Backbone
    sample: Tensor
    answers: Tensor
    weight: float = CLIPSCORE_WEIGHT

    def scores(self, answers: Tensor) -> Tensor:
        """CLIPScore. answers: (V, K) indices into the list. Returns (V, K)."""
        return clip_score(self.sample.unsqueeze(-2), self.answers[answers], self.weight)

    @property
    def logits(self) -> Tensor:
        """(V, C), scaled."""
        return self.clip.logit_scale * self.sample @ self.answers.T


@dataclass(frozen=True)
class RewardFunction:
    """A reward of the user's own.

    function: from N images (PIL, RGB) and N texts to N scores; image i is asked about with text i, and an image with
    several texts is the same object each time. None as a score leaves the answer out. name: what errors call it.
    """

    function: Callable[[list[Image.Image], list[str]], Sequence[float | None]]
    name: str = "the reward function"

    def scores(self, views: Tensor, texts: Sequence[Sequence[str]]) -> Tensor:
        """Scores of each view's texts, (V, K), `LEFT_OUT` where the function gives None.

        views: (V, 3, H, W), uint8 or float in [0, 1]; texts: K of each view. Raises UserError when the function fails
        or does not return a number or None for each pair.
        """
        pixels = views if views.dtype == torch.uint8 else (views * 255.0).round().to(torch.uint8)
        images = [to_image(view) for view in pixels.cpu()]
        pairs = [(image, text) for image, own in zip(images, texts, strict=True) for text in own]
        try:
            found = list(self.function([image for image, _ in pairs], [text for _, text in pairs]))
            scores = [LEFT_OUT if score is None else float(score) for score in found]
        except UserError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise UserError(f"{self.name} failed ({type(error).__name__}: {error})") from error
        if len(scores) != len(pairs):
            raise UserError(f"{self.name} returned {len(scores)} scores for {len(pairs)} pairs of image and text")
        return torch.tensor(scores, device=views.device).view(len(views), -1)


@dataclass(frozen=True)
class FunctionScorer:
    """A reward function that has seen a sample.

    views: (..., V, 3, H, W) as made; texts: the fixed list that answers are indices into, or None: answers are texts,
    K of each view.
    """

    function: RewardFunction
    views: Tensor
    texts: Sequence[str] | None = None

    def scores(self, answers: Any) -> Tensor:
        """answers: (..., V, K) indices, or V lists of K texts. Returns (..., V, K)."""
        views = self.views.flatten(0, -4)
        if self.texts is None:
            return self.function.scores(views, answers)
        rows = [[self.texts[answer] for answer in row] for row in answers.flatten(0, -2).tolist()]
        return self.function.scores(views, rows).view(answers.shape).to(answers.device)

    @property
    def logits(self) -> Tensor:
        """Raises UserError: a function has no logits."""
        raise UserError(f"{self.function.name} gives scores, not logits to distil; give a CLIP as --reward")
