"""Samples that are adapted to several at once, in groups."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

Sample = TypeVar("Sample")
Outcome = TypeVar("Outcome")

Adapt = Callable[[Sequence[tuple[int, Sample]]], list[Outcome]]
"""From (index, sample) of a group to the outcome of each. It returns none at all when one of several has to be given
up: its neighbours should not notice."""


def in_groups(
    samples: Iterator[tuple[int, Sample | str]], size: int, adapt: Adapt[Sample, Outcome]
) -> Iterator[tuple[int, Outcome | str, float]]:
    """Adapt to up to `size` samples at a time.

    samples: (index, sample), or what is wrong with one that cannot be read. Yields index, outcome (or what is wrong)
    and the sample's share of the seconds.
    """
    while group := list(islice(samples, size)):
        readable = [(index, sample) for index, sample in group if not isinstance(sample, str)]
        started = time.perf_counter()
        outcomes = side_by_side(readable, adapt)
        seconds = (time.perf_counter() - started) / max(1, len(readable))
        yield from ((index, outcome, seconds) for (index, _), outcome in zip(readable, outcomes, strict=True))
        yield from ((index, wrong, 0.0) for index, wrong in group if isinstance(wrong, str))


def side_by_side(group: Sequence[tuple[int, Sample]], adapt: Adapt[Sample, Outcome]) -> list[Outcome]:
    """The outcomes of a group: of all at once, or, when one of several is given up, of one at a time."""
    if not group:
        return []
    return adapt(group) or [adapt([sample])[0] for sample in group]
