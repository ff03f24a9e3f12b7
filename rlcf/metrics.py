"""Metrics: accuracy, calibration error, recall, and the confidence interval of a gain."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """The expected calibration error with bins of equal width (Guo et al., ICML 2017, eq. 3), percent.

    confidence: (N,) probability of the answer. correct: (N,) True or 1 for a right answer, else False or 0.
    """
    confidence, correct = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(index, weights=confidence - correct, minlength=bins)
    return 100.0 * float(np.abs(gap).sum() / len(confidence))


def best_rank(scores: ArrayLike, targets: Sequence[int]) -> int:
    """The rank of the best-ranked right answer to a query, from 1. Equal scores rank by their index.

    scores: (G,) of the gallery. targets: indices of the right answers in the gallery, at least one.
    """
    scores, right = np.asarray(scores), np.sort(np.asarray(targets))
    best = right[np.argmax(scores[right])]
    return 1 + int((scores > scores[best]).sum() + (scores[:best] == scores[best]).sum())


def top_indices(scores: ArrayLike, k: int) -> list[int]:
    """The indices of the k highest scores, best first. Equal scores rank by their index.

    scores: (G,). If G < k, all G are returned.
    """
    scores = np.asarray(scores)
    k = min(k, len(scores))
    candidates = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k].tolist()


def recall_at_k(ranks: ArrayLike, k: int) -> float:
    """The share of queries with a right answer among the first k, percent.

    ranks: (N,) rank of each query's best-ranked right answer, from 1.
    """
    return 100.0 * float((np.asarray(ranks) <= k).mean())


def paired_bootstrap(
    before: ArrayLike, after: ArrayLike, resamples: int = 10_000, seed: int = 0, groups: ArrayLike | None = None
) -> tuple[float, float, float]:
    """The mean of after - before over samples, with its 95% interval by the percentile bootstrap.

    before, after: (N,) values of the same samples in any unit. resamples: number of bootstrap draws.
    groups: (N,) integers; samples with the same integer are drawn together, such as the texts of one image.
    Returns (mean, low, high) in the unit of the values.
    """
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    group = np.arange(len(difference)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(group, weights=difference), np.bincount(group)
    # Many groups are equal. Drawing N groups is drawing how often each distinct one occurs among N.
    distinct, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    generator, block = np.random.default_rng(seed), max(1, 4_000_000 // len(counts))  # of draws, to bound the memory
    means = []
    for start in range(0, resamples, block):
        draws = generator.multinomial(len(sums), counts / len(sums), size=min(block, resamples - start))
        means.append(draws @ distinct[:, 0] / (draws @ distinct[:, 1]))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(difference.mean()), float(low), float(high)


def share_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95% interval of a share of n independent samples, percent (Wilson, 1927). hits: 0 to n; n: at least 1.

    Unlike a bootstrap it has a width also where all samples are right.
    """
    z = 1.959964
    share, spread = hits / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * np.sqrt(share * (1 - share) / n + spread / (4 * n))
    return 100.0 * max(0.0, float(middle - half)), 100.0 * min(1.0, float(middle + half))


def paired_p_value(
    before: ArrayLike, after: ArrayLike, resamples: int = 20_000, seed: int = 0, groups: ArrayLike | None = None
) -> float:
    """The two-sided p-value of a mean difference by the paired permutation test, which flips each difference's sign.

    For answers that are right or wrong it is McNemar's test. before, after: (N,) values of the same samples.
    resamples: number of draws; no p-value is below 1 / (resamples + 1). groups: as in `paired_bootstrap`.
    """
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    group = np.arange(len(difference)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(group, weights=difference)
    # Equal sizes are flipped together: of n equal ones a binomial number keeps its sign.
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    generator, flipped = np.random.default_rng(seed), np.zeros(resamples)
    for size, count in zip(sizes, counts, strict=True):
        flipped += size * (2 * generator.binomial(count, 0.5, resamples) - count)
    beyond = int((np.abs(flipped) >= abs(sums.sum()) - 1e-9).sum())
    return (1 + beyond) / (1 + resamples)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, adjusted so that one in twenty families has a false finding at 0.05 (Holm, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = highest
    return adjusted
