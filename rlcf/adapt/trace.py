"""The outcome of an episode, and its steps one by one."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rlcf.adapt.objectives import Step
from rlcf.adapt.rewards import LEFT_OUT


@dataclass(frozen=True)
class TracedStep:
    """One step of one sample's episode.

    loss; views: numbers of the K views that were learnt from, 0 the centre crop; answers: those sampled of each view;
    rewards, advantages: of each answer, None for one that was left out. None where the method has none.
    """

    loss: float
    views: list[int] | None = None
    answers: list[Any] | None = None
    rewards: list[list[float | None]] | None = None
    advantages: list[list[float | None]] | None = None

    def as_record(self) -> dict[str, Any]:
        """The step as a dict for JSON, without the members that are None; None for a number that is not finite."""
        return {name: _for_json(value) for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Outcome:
    """A sample's logits before and after its episode, (C,) on the CPU.

    after: None where the episode was given up; gated: True where student and reward model agreed and no step was taken;
    settled: True where the episode ended early, None where it could not.
    """

    before: Tensor
    after: Tensor | None
    trace: list[TracedStep]
    gated: bool = False
    settled: bool | None = None

    @property
    def answer(self) -> Tensor:
        """The adapted logits, or the zero-shot ones of an episode that was given up."""
        return self.before if self.after is None else self.after


def traced(steps: list[Step], sample: int, views: list[int] | None = None) -> list[TracedStep]:
    """One sample's part of the steps that N samples took together. sample: its place among them."""
    return [
        TracedStep(
            loss=float(step.loss[sample]),
            views=views,
            answers=_rows(step.answers, sample),
            rewards=_without(_rows(step.rewards, sample)),
            advantages=_without(_rows(step.advantages, sample)),
        )
        for step in steps
    ]


def trace_of(record: dict[str, Any]) -> list[TracedStep]:
    """The steps of a record, which `as_record` gave."""
    return [TracedStep(**step) for step in record["steps"]]


def ending(trace: Sequence[TracedStep], settled: bool | None, gated: bool = False) -> dict[str, Any]:
    """A record's part about how an episode ended; empty for one that could only take all its steps.

    settled, gated: as in `Outcome`.

    >>> ending([TracedStep(0.1), TracedStep(0.1)], settled=True)
    {'settled': True, 'steps_taken': 2}
    """
    if gated:
        return {"gated": True}
    return {} if settled is None else {"settled": settled, "steps_taken": len(trace)}


def names_in(trace: Sequence[TracedStep], further: Iterable[int], labels: Sequence[str]) -> dict[str, str]:
    """The names of all answers that the steps sampled and of further ones, so that a record can be read by itself.

    further: places in `labels`. Returns place, as JSON's keys are texts -> name, by rising place.
    """
    sampled = {answer for step in trace for row in step.answers or [] for answer in row}
    return {str(place): labels[place] for place in sorted(sampled | set(further))}


def _for_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_for_json(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(values: Any, sample: int) -> Any:
    """One sample's rows. values: a tensor, lists of texts, or None."""
    rows = values if values is None else values[sample]
    return rows.tolist() if isinstance(rows, Tensor) else rows


def _without(rows: list[list[float]] | None) -> list[list[float | None]] | None:
    return None if rows is None else [[None if value == LEFT_OUT else value for value in row] for row in rows]
