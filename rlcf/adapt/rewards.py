"""CLIPScore as a reward: scores, ensembles of reward models, and advantages."""

from collections.abc import Sequence

import torch
from torch import Tensor

CLIPSCORE_WEIGHT = 2.5


def clip_score(image_features: Tensor, text_features: Tensor, weight: float = CLIPSCORE_WEIGHT) -> Tensor:
    """CLIPScore = weight * max(cos(image, text), 0) (Hessel et al., EMNLP 2021, eq. 1).

    image_features, text_features: (..., D), unit length, broadcastable. Returns (...).

    >>> clip_score(torch.tensor([1.0, 0.0]), torch.tensor([[0.6, 0.8], [-1.0, 0.0]])).tolist()
    [1.5, 0.0]
    """
    return weight * (image_features * text_features).sum(dim=-1).clamp(min=0)


def weighted_mean(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The reward of an ensemble: sum of weight * score over the reward models (RLCF, section 3.4).

    scores: one tensor a model, equal shapes; weights: one a model, used as they are.
    """
    return sum((weight * score for weight, score in zip(weights, scores, strict=True)), torch.zeros_like(scores[0]))


def ensemble_weights(weights: Sequence[float], rounded: bool = False) -> list[float]:
    """Weights that sum to 1. `rounded` reproduces the published run: two digits, 10:3:5 -> 0.56, 0.17, 0.28."""
    shares = [weight / sum(weights) for weight in weights]
    return [round(share, 2) for share in shares] if rounded else shares


def advantages(scores: Tensor, baseline: str = "answers", divide_by_std: bool = False) -> Tensor:
    """Score minus baseline (RLCF, eq. 4).

    scores: (V, K) CLIPScores of K answers for each of V views (or images, or texts).
    baseline: "answers" - the mean over the K answers of one view; "all" - the mean over all V * K; "none" - 0.
    divide_by_std: also divide by the unbiased standard deviation (+ 1e-5) over the same answers.
    A single answer has no baseline: its advantage is its score. Returns (V, K).

    >>> [round(x, 4) for x in advantages(torch.tensor([[0.9, 0.6, 0.3]]))[0].tolist()]
    [0.3, 0.0, -0.3]
    """
    dims = {"answers": (-1,), "all": (-2, -1), "none": ()}[baseline]
    if not dims or torch.Size(scores.shape[dim] for dim in dims).numel() == 1:
        return scores
    centred = scores - scores.mean(dim=dims, keepdim=True)
    return centred / (scores.std(dim=dims, keepdim=True) + 1e-5) if divide_by_std else centred
