"""What happened in an episode, step by step."""

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
        """The step without what the method has none of."""
        return {name: value for name, value in vars(self).items() if value is not None}


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


def _rows(values: Any, sample: int) -> Any:
    """One sample's rows. values: a tensor, lists of texts, or None."""
    rows = values if values is None else values[sample]
    return rows.tolist() if isinstance(rows, Tensor) else rows


def _without(rows: list[list[float]] | None) -> list[list[float | None]] | None:
    return None if rows is None else [[None if value == LEFT_OUT else value for value in row] for row in rows]
