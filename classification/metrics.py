"""Records and metrics of classification: each image's answers, and the accuracy and calibration before and after."""

from collections.abc import Sequence

from torch import Tensor

from rlcf.adapt.trace import Outcome, names_in
from rlcf.metrics import calibration_error, top_k_accuracy
from rlcf.run.loop import Figure
from rlcf.run.records import Record
from rlcf.run.summary import Summary, answered, changes, counts, gain, interval, tail

ANSWERS = ("zero_shot", "adapted")


def about(label: int, classnames: Sequence[str]) -> Record:
    """A record's part about an image's class."""
    return {"label": label, "label_name": classnames[label]}


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


def summarise(records: list[Record]) -> Summary:
    """Metrics in percent; the gain with its 95% interval. Raises UserError when no image could be read."""
    summary, found = counts(records), answered(records)
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


def as_line(dataset: str, method: str | None, summary: Summary) -> str:
    """A dataset's summary as it is printed. method: None where the answer is the zero-shot one."""
    line = f"{dataset}: n {summary['n']}, zero-shot top-1 {summary['zero_shot']['top1']:.2f}"
    if method is not None:
        line += f", {method} {summary['adapted']['top1']:.2f} ({interval(summary['top1_gain'], digits=2)})"
    return line + tail(summary, "an image")
