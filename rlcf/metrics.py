"""What a run reports: accuracy, calibration, and how sure the gain is."""

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


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of after - before with its 95% percentile-bootstrap interval over the samples.

    before, after: (N,) the same samples' values, in the unit that comes back. Returns (mean, low, high).
    """
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    values, counts = np.unique(difference, return_counts=True)  # resampling N samples = drawing these values N times
    draws = np.random.default_rng(seed).multinomial(len(difference), counts / len(difference), size=resamples)
    low, high = np.percentile(draws @ values / len(difference), [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)
