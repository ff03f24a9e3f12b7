"""Doubt whether labels and folders match: a confident student that is right no more often than by chance."""

import math

import numpy as np

LEAST = 10
"""Samples below which nothing is said."""
HIGH = 0.5
"""A mean confidence from which a student counts as confident."""
QUANTILE = 3.1
"""Of the normal distribution: bounds of the accuracy hold with 99.9% each."""
NEAR_CHANCE = 0.1
"""Share of the way from chance to the confidence within which an accuracy counts as chance."""


def labels_doubtful(labels: np.ndarray, answers: np.ndarray, confidences: np.ndarray) -> str:
    """A sentence where the zero-shot accuracy is at chance while the confidence is high; else an empty text.

    The accuracy's bounds are Wilson's, so that few samples never suffice: the lower one has to be near chance, the
    upper one below half of the way from chance to the mean confidence.
    labels, answers: (N,) class indices, from 0; confidences: (N,) probabilities of the answers.
    """
    share = len(labels)
    if share < LEAST:
        return ""
    classes = 1 + max(int(labels.max()), int(answers.max()))
    counts = [np.bincount(found, minlength=classes).astype(float) for found in (labels, answers)]
    chance = float(counts[0] @ counts[1]) / share**2  # of answers that know nothing of the labels
    confidence = float(confidences.mean())
    accuracy = float((labels == answers).mean())
    low, high = wilson(accuracy, share)
    claimed = confidence - chance
    if confidence < HIGH or low > chance + NEAR_CHANCE * claimed or high > chance + 0.5 * claimed:
        return ""
    return (
        f"zero-shot is right for {100 * accuracy:.1f}% and {100 * confidence:.0f}% confident, where chance gives "
        f"{100 * chance:.1f}%: labels and folders probably do not match; compare the class names with the class folders"
    )


def wilson(share: float, count: int) -> tuple[float, float]:
    """The bounds of a share that was seen in `count` samples (Wilson, 1927).

    >>> print([round(bound, 2) for bound in wilson(0.0, 10)])
    [0.0, 0.49]
    """
    squared = QUANTILE**2
    middle = share + squared / (2 * count)
    spread = QUANTILE * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    low, high = ((middle + sign * spread) / (1 + squared / count) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)
