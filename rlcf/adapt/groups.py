"""Groups of samples: adapting to several samples at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

Sample = TypeVar("Sample")
Outcome = TypeVar("Outcome")

Adapt = Callable[[Sequence[tuple[int, Sample]]], list[Outcome]]
"""From (index, sample) of a group to the outcome of each. Raises `GroupGivenUp` when one of several has to be given up:
its neighbours should not notice."""


@dataclass(frozen=True)
class Unreadable:
    """A sample that cannot be read. reason: one sentence that names the file."""

    reason: str


class GroupGivenUp(Exception):
    """Raised when one sample of a group has to be given up."""


def in_groups(
    samples: Iterator[tuple[int, Sample | Unreadable]], size: int, adapt: Adapt[Sample, Outcome]
) -> Iterator[tuple[int, Outcome | Unreadable, float]]:
    """Adapt to up to `size` samples at a time.

    Yields index, outcome (or `Unreadable`) and the sample's share of the seconds.
    """
    while group := list(islice(samples, size)):
        readable = [(index, sample) for index, sample in group if not isinstance(sample, Unreadable)]
        started = time.perf_counter()
        outcomes = side_by_side(readable, adapt)
        seconds = (time.perf_counter() - started) / max(1, len(readable))
        yield from ((index, outcome, seconds) for (index, _), outcome in zip(readable, outcomes, strict=True))
        yield from ((index, sample, 0.0) for index, sample in group if isinstance(sample, Unreadable))


def side_by_side(group: Sequence[tuple[int, Sample]], adapt: Adapt[Sample, Outcome]) -> list[Outcome]:
    """The outcomes of a group: of all at once, or, when one of several is given up, of one at a time."""
    if not group:
        return []
    try:
        return adapt(group)
    except GroupGivenUp:
        return [adapt([sample])[0] for sample in group]
