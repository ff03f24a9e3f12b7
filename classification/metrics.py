"""Records and metrics of classification: each image's answers, and the accuracy and calibration before and after."""

import csv
import io
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from rlcf.adapt.trace import Outcome, names_in
from rlcf.metrics import calibration_error, top_k_accuracy
from rlcf.run.loop import Figure
from rlcf.run.records import Record
from rlcf.run.summary import Summary, answered, changes, counts, gain, interval, tail

ANSWERS = ("zero_shot", "adapted")


def about(label: int | None, classnames: Sequence[str]) -> Record:
    """A record's part about an image's class; empty for an image without a label."""
    return {} if label is None else {"label": label, "label_name": classnames[label]}


def describe(outcome: Outcome, classnames: Sequence[str]) -> Record:
    """A record's part about an image's two answers and the steps between them.

    Classes are numbers, since two may share a name; "names" holds the name of each that is mentioned.
    """
    answers = _answer("zero_shot", outcome.before, classnames) | _answer("adapted", outcome.answer, classnames)
    mentioned = names_in(outcome.trace, (c for name in ANSWERS for c in answers[f"{name}_top5"]), classnames)
    return answers | {"names": mentioned, "steps": [step.as_record() for step in outcome.trace]}


def _answer(name: str, logits: Tensor, classnames: Sequence[str]) -> Record:
    """An answer's part of a record. logits: (C,)."""
    confidence, classes = logits.softmax(dim=-1).topk(min(5, len(logits)))
    best = int(classes[0])
    told = {name: best, f"{name}_name": classnames[best], f"{name}_top5": classes.tolist()}
    return told | {f"{name}_confidence": float(confidence[0])}


TOP1 = Figure("top-1", lambda r: (100.0 * (r["zero_shot"] == r["label"]), 100.0 * (r["adapted"] == r["label"])))

CONFIDENCE = Figure("confidence", lambda r: (100.0 * r["zero_shot_confidence"], 100.0 * r["adapted_confidence"]))
"""The figures of images with labels, and of those without."""


def summarise(records: list[Record]) -> Summary:
    """Metrics in percent; the gain with its 95% interval. Raises UserError when no image could be read."""
    summary, found = counts(records), answered(records)
    if not all("label" in r for r in found):
        return summary | _without_labels(found)
    labels = [r["label"] for r in found]
    correct = {name: [r[name] == r["label"] for r in found] for name in ANSWERS}
    for name in ANSWERS:
        ranked = [r[f"{name}_top5"] for r in found]
        summary[name] = {
            "top1": top_k_accuracy(labels, ranked, 1),
            "top5": top_k_accuracy(labels, ranked, 5),
            "ece": calibration_error([r[f"{name}_confidence"] for r in found], correct[name]),
        }
    summary["top1_gain"] = gain(correct["zero_shot"], correct["adapted"], scale=100.0)
    return summary | changes(correct["zero_shot"], correct["adapted"])


def _without_labels(records: list[Record]) -> Summary:
    """Metrics of answers without labels: number of times each was given, mean confidence, number that changed."""
    summary: Summary = {"changed": sum(r["zero_shot"] != r["adapted"] for r in records)}
    for name in ANSWERS:
        confidence = sum(r[f"{name}_confidence"] for r in records) / len(records)
        predictions = Counter(r[f"{name}_name"] for r in records)
        summary[name] = {"confidence": 100.0 * confidence, "predictions": dict(predictions.most_common())}
    return summary


def as_csv(records: list[Record]) -> str:
    """The answers as a table: image, zero-shot answer, adapted answer, their probabilities; empty where unreadable."""
    columns = ["id", *(f"{name}{part}" for name in ANSWERS for part in ("_name", "_confidence"))]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *(column.removesuffix("_name") for column in columns[1:])])
    writer.writerows([record.get(column, "") for column in columns] for record in records)
    return text.getvalue()


def as_line(dataset: str, method: str | None, summary: Summary) -> str:
    """A dataset's summary as it is printed. method: None where the answer is the zero-shot one."""
    if "changed" in summary:
        answers = f"{method} changed {summary['changed']} answers" if method is not None else "zero-shot answers"
        return f"{dataset}: n {summary['n']}, no labels, {answers}" + tail(summary, "an image")
    line = f"{dataset}: n {summary['n']}, zero-shot top-1 {summary['zero_shot']['top1']:.2f}"
    if method is not None:
        line += f", {method} {summary['adapted']['top1']:.2f} ({interval(summary['top1_gain'], digits=2)})"
    return line + tail(summary, "an image")
