"""Records and metrics of captioning: each image's captions, and their rewards before and after."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from caption.captioner import Answer
from rlcf.adapt.trace import TracedStep, ending
from rlcf.run.loop import Figure
from rlcf.run.record_lines import Record
from rlcf.run.record_values import Kinds, is_text, number, steps_of
from rlcf.run.summary import Summary, answered, gain, in_one_pass, interval, tail

ANSWERS = ("zero_shot", "adapted")
PRINTED = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "CLIPScore", "RefCLIPScore")
"""The scores that are printed, where there are references and Java for them; results.json has all."""
NO_MEANS = ("BLEU", "METEOR")
"""Beginnings of metrics whose value for the corpus is not the mean of the captions' own."""

ROWS = {"candidates": "answers", "rewards": "rewards", "advantages": "advantages"}
"""A step's lists as a record calls them, and as `TracedStep` does."""


def describe(answer: Answer) -> Record:
    """A record's part about an image's captions; rewards where there are some."""
    record: Record = {"zero_shot": answer.zero_shot, "adapted": answer.adapted}
    rewards = {"zero_shot_reward": answer.zero_shot_reward, "adapted_reward": answer.adapted_reward}
    record |= {name: reward for name, reward in rewards.items() if reward is not None}
    return record | ending(answer.trace, answer.settled) | {"steps": [_step(step) for step in answer.trace]}


def _step(step: TracedStep) -> dict[str, Any]:
    """A step as a record holds it. An image has one view, so that its lists are not nested."""
    record = step.as_record()
    return {own: record[name][0] for own, name in ROWS.items()} | {"loss": record["loss"]}


def kinds(record: Record, steps: int) -> Kinds:
    """The kinds of what `describe` puts into a record. steps: of an episode at most."""
    rewards = {f"{name}_reward": number() for name in ANSWERS if f"{name}_reward" in record}
    are_steps = steps_of(record, steps, is_text)
    own = {"steps": lambda value: isinstance(value, list) and are_steps([_traced(step) for step in value])}
    return {**dict.fromkeys(ANSWERS, is_text), **rewards, **own}


def _traced(step: Any) -> dict[str, Any] | None:
    """A step of a record with its lists nested again; None for what is no step."""
    if not isinstance(step, dict) or step.keys() != {*ROWS, "loss"}:
        return None
    return {name: [step[own]] for own, name in ROWS.items()} | {"loss": step["loss"]}


def rewards_of(record: Record) -> tuple[float, float] | None:
    """A record's rewards before and after; None where one of the two is missing."""
    if "zero_shot_reward" in record and "adapted_reward" in record:
        return record["zero_shot_reward"], record["adapted_reward"]
    return None


REWARD = Figure("reward", rewards_of, digits=3)


FIELDS = [("changed", "?"), *((f"{name}_reward", "f8") for name in ANSWERS)]
"""Fields and NumPy types of the array from which the metrics are computed, one row a record.

A reward that it lacks is NaN."""


def summarise(records: Iterable[Record]) -> Summary:
    """The mean rewards, and the gain with its 95% interval, where there are rewards.

    Raises UserError when no image could be read.
    """

    def numbers(record: Record) -> tuple[bool, float, float]:
        return record["zero_shot"] != record["adapted"], *(rewards_of(record) or (math.nan, math.nan))

    summary, found = in_one_pass(records, FIELDS, numbers)
    summary |= {name: {} for name in ANSWERS}
    rewards = [found[f"{name}_reward"] for name in ANSWERS]
    having = ~np.isnan(rewards[0])
    if having.any():
        before, after = (values[having] for values in rewards)
        for name, values in zip(ANSWERS, (before, after), strict=True):
            summary[name]["reward"] = float(values.mean())
        summary["reward_gain"] = gain(before, after)
        summary["reward_rose"] = int((after > before).sum())
        summary["reward_fell"] = int((after < before).sum())
        summary["changed_percent"] = 100 * float(found["changed"].mean())
    return summary


@dataclass(frozen=True)
class OfDomain:
    """The records of one domain, as a stream."""

    records: Iterable[Record]
    domain: str

    def __iter__(self) -> Iterator[Record]:
        return (record for record in self.records if record.get("domain") == self.domain)


def by_domain(records: Iterable[Record]) -> dict[str, OfDomain]:
    """The records of each domain that has an image that could be read; empty for a dataset without domains."""
    domains = dict.fromkeys(record["domain"] for record in answered(records) if "domain" in record)
    return {domain: OfDomain(records, domain) for domain in domains}


def as_line(dataset: str, method: str, summary: Summary) -> str:
    """A dataset's summary as it is printed."""
    line = f"{dataset}: n {summary['n']}"
    if "reward_gain" in summary:
        line += f", zero-shot reward {summary['zero_shot']['reward']:.4f}, {method} {summary['adapted']['reward']:.4f}"
        line += f" ({interval(summary['reward_gain'], digits=4)})"
        line += f", {summary['changed_percent']:.0f}% of the captions changed"
    return line + tail(summary, "an image")


def gain_of(metric: str) -> str:
    """The name of a metric's gain, which is that of the captions' own values where the corpus' is not their mean."""
    return f"{metric} of captions" if metric.startswith(NO_MEANS) else metric


def scores_as_line(dataset: str, method: str, summary: Summary, clip: str) -> str:
    """The scores of a dataset's captions as they are printed, times 100 as papers print them.

    summary: with the scores of --evaluate; clip: name of the CLIP of CLIPScore.
    """
    told = []
    for metric in PRINTED:
        if metric in summary["adapted"]:
            before, after = (f"{100 * summary[name][metric]:.1f}" for name in ANSWERS)
            gained = {key: 100 * value for key, value in summary["gains"][gain_of(metric)].items()}
            change = interval(gained, 1, "captions' gain" if metric.startswith(NO_MEANS) else "gain")
            told.append(f"{metric} {before}" + ("" if method == "zeroshot" else f" -> {after} ({change})"))
    which = "zero-shot" if method == "zeroshot" else f"zero-shot -> {method}"
    return f"{dataset}: scores times 100, {which}: {', '.join(told)}; CLIPScore by {clip}"
