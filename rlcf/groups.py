"""Samples that are adapted to several at once: taken in groups that fill a fixed number of places."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

Sample = TypeVar("Sample")
Outcome = TypeVar("Outcome")

Adapt = Callable[[Sequence[tuple[int, Sample]], bool], list[Outcome]]
"""From as many (index, sample) as there are places, and whether they are different ones, to the outcome of each. It
returns none at all when a single one of different samples has to be given up: its neighbours should not notice."""


def in_groups(
    samples: Iterator[tuple[int, Sample | str]], places: int, adapt: Adapt[Sample, Outcome]
) -> Iterator[tuple[int, Outcome | str, float]]:
    """Adapt to `places` samples at a time.

    samples: (index, sample), or what is wrong with one that cannot be read. Yields index, outcome (or what is wrong)
    and the sample's share of the seconds.
    """
    while group := list(islice(samples, places)):
        readable = [(index, sample) for index, sample in group if not isinstance(sample, str)]
        started = time.perf_counter()
        outcomes = side_by_side(readable, places, adapt)
        seconds = (time.perf_counter() - started) / max(1, len(readable))
        yield from ((index, outcome, seconds) for (index, _), outcome in zip(readable, outcomes, strict=True))
        yield from ((index, wrong, 0.0) for index, wrong in group if isinstance(wrong, str))


def side_by_side(group: Sequence[tuple[int, Sample]], places: int, adapt: Adapt[Sample, Outcome]) -> list[Outcome]:
    """The outcomes of up to `places` samples: of all at once, or, when one is given up, of each in every place."""
    if not group:
        return []
    filled = [*group, *[group[-1]] * (places - len(group))]
    outcomes = adapt(filled, places > 1)
    return outcomes[: len(group)] or [adapt([sample] * places, False)[0] for sample in group]
