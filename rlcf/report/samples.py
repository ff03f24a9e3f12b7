"""A sample as the report tells it, whichever task it is of: its answers, what was right, and the steps in between."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlcf.errors import UserError
from rlcf.inputs.json_files import shown
from rlcf.report.runs import DatasetRecords, RunFolder
from rlcf.run.record_lines import Record
from rlcf.run.summary import NON_FINITE, UNREADABLE
from rlcf.terminal import visible

KINDS = ("fixed", "spoilt", "unchanged", "not finite", "unreadable")
"""What became of a sample. Fixed, spoilt: its main metric rose, fell. Pictures without labels are "changed" instead."""
EACH = {"zero_shot": "each-scores-zero-shot.json", "adapted": "each-scores.json"}
"""The scores of each caption that --evaluate wrote."""


HUNDRED = ("BLEU", "METEOR", "ROUGE", "CIDEr", "SPICE")
"""Metrics of captions that papers tell times 100."""


def scale_of(metric: str) -> float:
    """What a score of a caption is multiplied by."""
    return 100.0 if metric.startswith(HUNDRED) else 1.0


@dataclass(frozen=True)
class Sampled:
    """An answer that a step sampled. reward, advantage: None for one that was left out; right: None if not known."""

    name: str
    reward: float | None
    advantage: float | None
    right: bool | None


@dataclass(frozen=True)
class Step:
    """A step: its loss, and per view that was learnt from its number, 0 the centre crop, and the answers sampled."""

    loss: float | None
    views: list[tuple[int | None, list[Sampled]]]


@dataclass(frozen=True)
class Sample:
    """A sample. Names and texts have no control characters.

    image: its path below the dataset's images; query: the text that searches images, else ""; truth: the right answers,
    by name, best known first; before, after: the answers, by name; before_image, after_image, truth_image: paths, where
    answers are images; values: metric -> its value before and after; group: its class or domain, "" for none; cluster:
    samples with the same one are not independent; reason: why it could not be read.
    """

    id: str
    image: str
    status: str
    truth: list[str]
    group: str
    gated: bool = False
    query: str = ""
    before: str = ""
    after: str = ""
    before_image: str = ""
    after_image: str = ""
    truth_image: str = ""
    values: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    confidence: tuple[float, float] | None = None
    rewards: tuple[float | None, float | None] = (None, None)
    seconds: float | None = None
    cluster: str = ""
    steps: list[Step] = field(default_factory=list)
    reason: str = ""

    @property
    def answered(self) -> bool:
        return self.status != UNREADABLE

    @property
    def reward_gain(self) -> float | None:
        """The adapted answer's reward minus the zero-shot one's; None where one of the two is not known."""
        before, after = self.rewards
        return None if before is None or after is None else after - before

    def kind(self, metric: str | None) -> str:
        """One of `KINDS`. metric: the main one, None where nothing tells what is right."""
        if self.status == UNREADABLE:
            return "unreadable"
        if self.status == NON_FINITE:
            return "not finite"
        if metric is None:
            return "unchanged" if self.before == self.after else "changed"
        before, after = self.values.get(metric, (0.0, 0.0))
        return "fixed" if after > before else "spoilt" if after < before else "unchanged"


def read_samples(run: RunFolder, dataset: DatasetRecords) -> list[Sample]:
    """The samples of a dataset's records. Raises UserError for records that lack what the task's records have."""
    read: dict[str, Callable[[Record], Sample]] = {
        "classification": _classified,
        "retrieval": lambda record: _retrieved(record, dataset.name.endswith("t2i")),
        "captioning": _Captioned(dataset.folder),
    }
    samples = []
    for record in dataset.records:
        try:
            samples.append(read[run.task](record))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{dataset.folder} holds records that this version of rlcf cannot read (sample {record['index']}: "
                f"{type(error).__name__} {error}); run it again into another --output"
            ) from error
    return samples


def _unread(record: Record, truth: list[str], group: str = "", query: str = "") -> Sample:
    image = record["id"] if not query else record["id"].rpartition("#")[0]
    reason = visible(str(record.get("reason", "")))
    return Sample(
        visible(record["id"]), image, UNREADABLE, truth, group, query=query, cluster=record["id"], reason=reason
    )


def _shared(record: Record) -> dict[str, Any]:
    return {
        "id": visible(record["id"]),
        "status": record["status"],
        "gated": bool(record.get("gated", False)),
        "seconds": _number(record["seconds"]),
        "confidence": _pair(record, "confidence"),
    }


def _pair(record: Record, name: str) -> tuple[float, float] | None:
    if f"zero_shot_{name}" not in record:
        return None
    before, after = _number(record[f"zero_shot_{name}"]), _number(record[f"adapted_{name}"])
    return None if before is None or after is None else (before, after)


def is_number(value: Any) -> bool:
    """True for a number that can be drawn: neither NaN nor without end."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def _number(value: Any) -> float | None:
    """A number of a record; None for one that is not finite, and where there is none. Raises TypeError for others."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if not is_number(value):
        raise TypeError(f"{shown(value)} is no number")
    return float(value)


def _classified(record: Record) -> Sample:
    label = record.get("label")  # None for pictures without labels
    truth = [] if label is None else [visible(record["label_name"])]
    group = truth[0] if truth else ""
    if record["status"] == UNREADABLE:
        return _unread(record, truth, group)
    values: dict[str, tuple[float, float]] = {}
    if label is not None:
        values["top-1"] = (100.0 * (record["zero_shot"] == label), 100.0 * (record["adapted"] == label))
        values["top-5"] = (100.0 * (label in record["zero_shot_top5"]), 100.0 * (label in record["adapted_top5"]))
    steps = _steps_of_places(record, None if label is None else {label})
    return Sample(
        **_shared(record),
        image=record["id"],
        truth=truth,
        group=group,
        before=visible(record["zero_shot_name"]),
        after=visible(record["adapted_name"]),
        values=values,
        rewards=(_reward_of(record, record["zero_shot"]), _reward_of(record, record["adapted"])),
        cluster=record["id"],
        steps=steps,
    )


def _retrieved(record: Record, of_texts: bool) -> Sample:
    """of_texts: True where texts search images."""
    query = visible(record["query"]) if of_texts else ""
    image = record["id"].rpartition("#")[0] if of_texts else record["id"]
    if record["status"] == UNREADABLE:
        return _unread(record, [], query=query)
    names, ranks = record["names"], (record["zero_shot_rank"], record["adapted_rank"])
    values = {f"R@{k}": (100.0 * (ranks[0] <= k), 100.0 * (ranks[1] <= k)) for k in (1, 5, 10)}
    targets = set(record["targets"])
    found = (record["zero_shot_found"], record["adapted_found"])
    images = {"before_image": found[0], "after_image": found[1], "truth_image": image} if of_texts else {}
    return Sample(
        **_shared(record),
        **images,
        image=image,
        query=query,
        truth=[visible(names[str(place)]) for place in record["targets"]],
        group="",
        before=visible(found[0]),
        after=visible(found[1]),
        values=values,
        rewards=(_reward_of(record, record["zero_shot_top10"][0]), _reward_of(record, record["adapted_top10"][0])),
        cluster=image,
        steps=_steps_of_places(record, targets),
    )


class _Captioned:
    """Reads a caption's record, with the scores that --evaluate gave it."""

    def __init__(self, folder: Path) -> None:
        self.scores = {}
        for name, file in EACH.items():
            try:
                held = json.loads((folder / file).read_text(encoding="utf-8"))
                self.scores[name] = held if isinstance(held, dict) else {}
            except (OSError, ValueError, RecursionError):
                self.scores[name] = {}

    def __call__(self, record: Record) -> Sample:
        truth = [visible(text) for text in record.get("references", [])]
        group = visible(record.get("domain", ""))
        if record["status"] == UNREADABLE:
            return _unread(record, truth, group)
        before, after = (self.scores[name].get(record["id"], {}) for name in EACH)
        values = {
            visible(name): (scale_of(name) * value, scale_of(name) * after[name])
            for name, value in before.items()
            if is_number(value) and is_number(after.get(name))
        }
        rewards = (_number(record.get("zero_shot_reward")), _number(record.get("adapted_reward")))
        if rewards[0] is not None and rewards[1] is not None:
            values["reward"] = (rewards[0], rewards[1])
        return Sample(
            **_shared(record),
            image=record["id"],
            truth=truth,
            group=group,
            before=visible(record["zero_shot"]),
            after=visible(record["adapted"]),
            values=values,
            rewards=rewards,
            cluster=record["id"],
            steps=[_caption_step(step) for step in record["steps"]],
        )


def _caption_step(step: Record) -> Step:
    texts = step.get("candidates", [])
    rewards, advantages = (step.get(name) or [None] * len(texts) for name in ("rewards", "advantages"))
    rows = zip(texts, rewards, advantages, strict=True)
    sampled = [Sampled(visible(text), _number(reward), _number(advantage), None) for text, reward, advantage in rows]
    return Step(_number(step.get("loss")), [(None, sampled)] if sampled else [])


def _steps_of_places(record: Record, targets: set[int] | None) -> list[Step]:
    """The steps of a record whose answers are numbers of classes or of places in a gallery."""
    names, steps = {place: visible(name) for place, name in record["names"].items()}, []

    def sampled(place: int, reward: Any, advantage: Any) -> Sampled:
        right = None if targets is None else place in targets
        return Sampled(names[str(place)], _number(reward), _number(advantage), right)

    for step in record["steps"]:
        answers = step.get("answers") or []
        numbers = step.get("views") or [None] * max(1, len(answers))
        blank = [[None] * len(row) for row in answers]
        rewards, advantages = step.get("rewards") or blank, step.get("advantages") or blank
        rows = [
            [sampled(*one) for one in zip(*row, strict=True)] for row in zip(answers, rewards, advantages, strict=True)
        ]
        rows += [[] for _ in numbers[len(rows) :]]
        steps.append(Step(_number(step.get("loss")), list(zip(numbers, rows, strict=True))))
    return steps


def _reward_of(record: Record, place: int) -> float | None:
    """The mean reward of an answer over the views that it was sampled of; None for one that no step sampled.

    The reward of a view's answer is the same in every step.
    """
    found: dict[int, float] = {}
    for step in record["steps"]:
        for view, (answers, rewards) in enumerate(
            zip(step.get("answers") or [], step.get("rewards") or [], strict=True)
        ):
            for answer, reward in zip(answers, rewards, strict=True):
                if answer == place and (number := _number(reward)) is not None:
                    found[view] = number
    return sum(found.values()) / len(found) if found else None
