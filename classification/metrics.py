"""Records and metrics of classification: each image's answers, and the accuracy and calibration before and after."""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from classification.doubt import labels_doubtful
from rlcf.adapt.trace import Outcome, TracedStep, names_in, trace_of
from rlcf.metrics import calibration_error
from rlcf.run.files import replacing
from rlcf.run.loop import Figure
from rlcf.run.record_lines import Record
from rlcf.run.record_values import Kind, Kinds, number, place, same, steps_of, top
from rlcf.run.summary import Summary, changes, gain, in_one_pass, interval, tail

ANSWERS = ("zero_shot", "adapted")
PARTS = (("", "i4"), ("_in_top5", "?"), ("_confidence", "f8"))
NO_LABEL = -1


def about(label: int | None, classnames: Sequence[str]) -> Record:
    """A record's part about an image's class; empty for an image without a label."""
    return {} if label is None else {"label": label, "label_name": classnames[label]}


def describe(outcome: Outcome, classnames: Sequence[str]) -> Record:
    """A record's part about an image's two answers and the steps between them.

    Classes are numbers, since two may share a name; "names" holds the name of each that is mentioned.
    """
    answers = _answer("zero_shot", outcome.before, classnames) | _answer("adapted", outcome.answer, classnames)
    names = _names(answers, outcome.trace, classnames)
    return answers | {"names": names, "steps": [step.as_record() for step in outcome.trace]}


def _names(record: Record, trace: Sequence[TracedStep], classnames: Sequence[str]) -> dict[str, str]:
    return names_in(trace, (c for name in ANSWERS for c in record[f"{name}_top5"]), classnames)


def kinds(record: Record, classnames: Sequence[str], steps: int, views: int) -> Kinds:
    """The kinds of what `describe` puts into a record. steps: of an episode at most; views: that each image has."""
    answers = _answer_kinds("zero_shot", record, classnames) | _answer_kinds("adapted", record, classnames)
    own = {"steps": steps_of(record, steps, place(len(classnames)), views)}
    return answers | own | {"names": lambda value: same(_names(record, trace_of(record), classnames))(value)}


def _answer_kinds(name: str, record: Record, classnames: Sequence[str]) -> dict[str, Kind]:
    count = len(classnames)
    return {
        name: place(count),
        f"{name}_name": lambda value: value == classnames[record[name]],
        f"{name}_top5": lambda value: top(5, count)(value) and value[0] == record[name],
        f"{name}_confidence": number(0, 1),
    }


def _answer(name: str, logits: Tensor, classnames: Sequence[str]) -> Record:
    """An answer's part of a record. logits: (C,)."""
    confidence, classes = logits.softmax(dim=-1).topk(min(5, len(logits)))
    best = int(classes[0])
    told = {name: best, f"{name}_name": classnames[best], f"{name}_top5": classes.tolist()}
    return told | {f"{name}_confidence": float(confidence[0])}


TOP1 = Figure("top-1", lambda r: (100.0 * (r["zero_shot"] == r["label"]), 100.0 * (r["adapted"] == r["label"])))

CONFIDENCE = Figure("confidence", lambda r: (100.0 * r["zero_shot_confidence"], 100.0 * r["adapted_confidence"]))
"""The figures of images with labels, and of those without."""


FIELDS = [("label", "i4"), *((f"{name}{part}", kind) for name in ANSWERS for part, kind in PARTS)]
"""Fields and NumPy types of the array from which the metrics are computed, one row a record.

The label of an image without one is `NO_LABEL`."""


def summarise(records: Iterable[Record]) -> Summary:
    """Metrics in percent; the gain with its 95% interval. Raises UserError when no image could be read.

    "doubt" holds a sentence where labels and class folders probably do not match.
    """
    predictions: dict[str, Counter[str]] = {name: Counter() for name in ANSWERS}

    def numbers(record: Record) -> tuple[Any, ...]:
        label = record.get("label", NO_LABEL)
        told: list[Any] = [label]
        for name in ANSWERS:
            told += [record[name], label in record[f"{name}_top5"], record[f"{name}_confidence"]]
            predictions[name][record[f"{name}_name"]] += 1
        return tuple(told)

    summary, found = in_one_pass(records, FIELDS, numbers)
    labels = found["label"]
    if (labels == NO_LABEL).any():
        return summary | _without_labels(found, predictions)
    correct = {name: found[name] == labels for name in ANSWERS}
    for name in ANSWERS:
        summary[name] = {
            "top1": 100.0 * float(correct[name].mean()),
            "top5": 100.0 * float(found[f"{name}_in_top5"].mean()),
            "ece": calibration_error(found[f"{name}_confidence"], correct[name]),
        }
    summary["top1_gain"] = gain(correct["zero_shot"], correct["adapted"], scale=100.0)
    doubt = labels_doubtful(labels, found["zero_shot"], found["zero_shot_confidence"])
    return summary | changes(correct["zero_shot"], correct["adapted"]) | ({"doubt": doubt} if doubt else {})


def _without_labels(found: np.ndarray, predictions: Mapping[str, "Counter[str]"]) -> Summary:
    """Metrics of answers without labels: number of times each was given, mean confidence, number that changed."""
    summary: Summary = {"changed": int((found["zero_shot"] != found["adapted"]).sum())}
    for name in ANSWERS:
        confidence = float(found[f"{name}_confidence"].mean())
        summary[name] = {"confidence": 100.0 * confidence, "predictions": dict(predictions[name].most_common())}
    return summary


def write_csv(file: Path, records: Iterable[Record]) -> None:
    """Write the answers as a table: image, zero-shot answer, adapted answer, their probabilities; empty where
    unreadable. Raises UserError as `replacing`."""
    columns = ["id", *(f"{name}{part}" for name in ANSWERS for part in ("_name", "_confidence"))]
    named = ["image", *(column.removesuffix("_name") for column in columns[1:])]
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(named)
        writer.writerows([record.get(column, "") for column in columns] for record in records)


def as_line(dataset: str, method: str | None, summary: Summary) -> str:
    """A dataset's summary as it is printed. method: None where the answer is the zero-shot one."""
    if "changed" in summary:
        answers = f"{method} changed {summary['changed']} answers" if method is not None else "zero-shot answers"
        return f"{dataset}: n {summary['n']}, no labels, {answers}" + tail(summary, "an image")
    line = f"{dataset}: n {summary['n']}, zero-shot top-1 {summary['zero_shot']['top1']:.2f}"
    if method is not None:
        line += f", {method} {summary['adapted']['top1']:.2f} ({interval(summary['top1_gain'], digits=2)})"
    return line + tail(summary, "an image")
