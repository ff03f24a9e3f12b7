"""What a run reports of its answers: each image's, and the accuracy and calibration before and after."""

from collections import Counter
from typing import Any

from torch import Tensor

from rlcf.errors import UserError
from rlcf.metrics import calibration_error, paired_bootstrap, top_k_accuracy
from rlcf.run.records import Record


def describe(name: str, logits: Tensor) -> Record:
    """What a record tells of an answer. logits: (C,)."""
    confidence, classes = logits.softmax(dim=-1).topk(min(5, len(logits)))
    return {name: int(classes[0]), f"{name}_top5": classes.tolist(), f"{name}_confidence": float(confidence[0])}


def count(tally: Counter[str], record: Record) -> str:
    """Add a record to the running accuracy. Returns what the progress bar tells."""
    if record["status"] != "unreadable":
        tally.update(n=1, before=record["zero_shot"] == record["label"], after=record["adapted"] == record["label"])
    before, after = (100 * tally[name] / max(tally["n"], 1) for name in ("before", "after"))
    return f"top-1 {before:.1f} -> {after:.1f}"


def summarise(records: list[Record]) -> dict[str, Any]:
    """Metrics in percent; the gain with its 95% interval. Raises UserError when no image could be read."""
    answered = [r for r in records if r["status"] != "unreadable"]
    if not answered:
        raise UserError("none of the images could be read; records.jsonl tells why")
    labels = [r["label"] for r in answered]
    summary: dict[str, Any] = {"n": len(answered), "unreadable": len(records) - len(answered)}
    correct = {}
    for name in ("zero_shot", "adapted"):
        correct[name] = [r[name] == r["label"] for r in answered]
        ranked = [r[f"{name}_top5"] for r in answered]
        summary[name] = {
            "top1": top_k_accuracy(labels, ranked, 1),
            "top5": top_k_accuracy(labels, ranked, 5),
            "ece": calibration_error([r[f"{name}_confidence"] for r in answered], correct[name]),
        }
    gain, low, high = (100 * value for value in paired_bootstrap(correct["zero_shot"], correct["adapted"]))
    summary["top1_gain"] = {"mean": gain, "low": low, "high": high}
    summary["non_finite"] = sum(r["status"] == "non-finite" for r in answered)
    summary["seconds_per_sample"] = sum(r["seconds"] for r in answered) / len(answered)
    return summary


def as_line(dataset: str, method: str, summary: dict[str, Any]) -> str:
    line = f"{dataset}: n {summary['n']}, zero-shot top-1 {summary['zero_shot']['top1']:.2f}"
    if method != "zeroshot":
        gain = summary["top1_gain"]
        line += f", {method} {summary['adapted']['top1']:.2f}"
        line += f" (gain {gain['mean']:+.2f}, 95% interval {gain['low']:+.2f} to {gain['high']:+.2f})"
    line += f", {summary['seconds_per_sample']:.3f} s an image"
    for count, what in ((summary["non_finite"], "kept zero-shot (not finite)"), (summary["unreadable"], "unreadable")):
        line += f", {count} {what}" if count else ""
    return line
