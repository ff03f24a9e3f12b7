"""The values of a record: each of the kind that a run writes.

A checksum finds what was changed by accident. Who changes a record and makes its checksum anew may change what it says;
a value of another kind, which no run writes, is found here.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rlcf.run.record_lines import Record
from rlcf.run.summary import NON_FINITE, OK, UNREADABLE

Kind = Callable[[Any], bool]
"""True for a value of a kind."""
Kinds = Mapping[str, Kind]
"""The keys of a record, or of a part of it, and the kind of each value. They are looked at in this order, so that a
kind may use the values before it."""
MOST = 1e100
"""Numbers are below it."""


def number(low: float = -MOST, high: float = MOST) -> Kind:
    return lambda value: type(value) in (int, float) and low <= value <= high


def place(count: int) -> Kind:
    """A whole number from 0, below `count`."""
    return lambda value: type(value) is int and 0 <= value < count


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def same(expected: Any) -> Kind:
    """This value, of the same type."""
    return lambda value: bool(value == expected) and json.dumps(value) == json.dumps(expected)


def top(count: int, of: int) -> Kind:
    """The first places of a ranking of `of` answers, at most `count`."""
    return lambda value: is_list(place(of))(value) and len(value) == min(count, of) == len(set(value))


def is_list(kind: Kind) -> Kind:
    return lambda value: isinstance(value, list) and all(map(kind, value))


def holds(value: Any, kinds: Kinds) -> bool:
    """True for a dict with these keys alone, whose values are of these kinds."""
    return isinstance(value, dict) and value.keys() == kinds.keys() and all(fits(value[k]) for k, fits in kinds.items())


def steps_of(record: Record, most: int, answer: Kind, views: int = 0) -> Kind:
    """The steps of a record, each as `TracedStep.as_record` gives it.

    most: number of steps at most; answer: the kind of a sampled answer; views: number of views to learn from.
    """
    numbers = number() if record["status"] == OK else _or_none(number())
    return lambda value: (
        isinstance(value, list) and len(value) <= most and all(_is_step(step, numbers, answer, views) for step in value)
    )


def _is_step(step: Any, loss: Kind, answer: Kind, views: int) -> bool:
    """A step. Of each view there is a row of answers, of each answer a reward and an advantage; or there are none."""
    rows, scores = is_list(is_list(answer)), is_list(is_list(_or_none(number())))
    known = {"views": is_list(place(views)), "answers": rows, "rewards": scores, "advantages": scores}
    if not isinstance(step, dict):
        return False
    there = [key for key in known if key in step]
    if not holds(step, {"loss": loss, **{key: known[key] for key in there}}):
        return False
    numbers = step.get("views")
    shapes = [[len(row) for row in step[key]] for key in there if key != "views"]
    if shapes and (len(shapes) < 3 or shapes.count(shapes[0]) < 3 or len(shapes[0]) != len(numbers or shapes[0])):
        return False
    return numbers is None or len(set(numbers)) == len(numbers) > 0


def _or_none(kind: Kind) -> Kind:
    return lambda value: value is None or kind(value)


def is_as_written(record: Record, row: bytes, about: Record, kinds: Callable[[Record], Kinds]) -> bool:
    """True for a record whose values are of the kinds that a run writes.

    row: of the arrays beside it, fp32, which are NaN for a sample that could not be read; about: what it holds of its
    sample; kinds: from the record to those of what it holds of its answers. Its "index" and "id" are known.
    """
    shared: Kinds = {"index": same(record["index"]), "id": is_text, **{key: same(about[key]) for key in about}}
    unread = record["status"] == UNREADABLE
    if len(row) and bool(np.isnan(np.frombuffer(row, "<f4")).any()) != unread:
        return False
    if unread:
        return holds(record, {**shared, "status": is_text, "reason": is_text})
    status: Kinds = {"status": lambda value: value in (OK, NON_FINITE), "seconds": number(0)}
    return holds(record, {**shared, **status, **kinds(record), **_ending(record)})


def _ending(record: Record) -> Kinds:
    """The kinds of what `rlcf.adapt.trace.ending` puts into a record."""
    if "gated" in record:
        return {"gated": same(True), "steps": same([])}
    if "settled" in record or "steps_taken" in record:
        return {"settled": is_flag, "steps_taken": lambda value: same(len(record["steps"]))(value)}
    return {}
