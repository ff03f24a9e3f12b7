"""What a run reports: accuracy, calibration, recall, and how sure the gain is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def top_k_accuracy(labels: ArrayLike, ranked: ArrayLike, k: int) -> float:
    """Share of samples whose label is among the first k answers, percent.

    labels: (N,) class indices; ranked: (N, >= k) class indices, best first (all of them when there are fewer than k).
    """
    hits = np.asarray(ranked)[:, :k] == np.asarray(labels)[:, None]
    return 100.0 * float(hits.any(axis=1).mean())


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Expected calibration error with equal-width bins (Guo et al., ICML 2017, eq. 3), percent.

    confidence: (N,) probability of the answer; correct: (N,) whether it was right.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=confidence - correct, minlength=bins)
    return 100.0 * float(np.abs(gap).sum() / len(confidence))


def best_rank(scores: ArrayLike, targets: Sequence[int]) -> int:
    """Rank of the best of a query's right answers, 1 for the first place; equal scores rank by their index.

    scores: (G,) of the gallery; targets: indices of the right answers, at least one.
    """
    scores, right = np.asarray(scores), np.sort(np.asarray(targets))
    best = right[np.argmax(scores[right])]
    return 1 + int((scores > scores[best]).sum() + (scores[:best] == scores[best]).sum())


def top_indices(scores: ArrayLike, k: int) -> list[int]:
    """Indices of the k highest scores (all when there are fewer), best first; equal scores by their index.

    scores: (G,).
    """
    scores = np.asarray(scores)
    k = min(k, len(scores))
    candidates = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k].tolist()


def recall_at_k(ranks: ArrayLike, k: int) -> float:
    """Share of queries with a right answer among the first k, percent.

    ranks: (N,) of each query's best right answer, from 1.
    """
    return 100.0 * float((np.asarray(ranks) <= k).mean())


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, resamples: int = 10_000, seed: int = 0, groups: ArrayLike | None = None
) -> tuple[float, float, float]:
    """Mean of after - before with its 95% percentile-bootstrap interval over the samples.

    before, after: (N,) the same samples' values, in the unit that comes back. groups: (N,) integers, equal for samples
    that are alike and so are drawn together, as the texts of one image. Returns (mean, low, high).
    """
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    group = np.arange(len(difference)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(group, weights=difference), np.bincount(group)
    # Resampling N groups is drawing the distinct ones N times.
    distinct, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(len(sums), counts / len(sums), size=resamples)
    low, high = np.percentile(draws @ distinct[:, 0] / (draws @ distinct[:, 1]), [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)
