"""What a run records of a ranking, and what it reports of many: recall, as the LAVIS evaluation defines it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rlcf.errors import UserError
from rlcf.metrics import best_rank, paired_bootstrap, recall_at_k, top_indices
from rlcf.run.records import Record

CUTOFFS = (1, 5, 10)
PREFIX = {"i2t": "txt", "t2i": "img"}
"""What a direction finds, as the metrics are named."""


def describe(name: str, logits: Tensor, targets: list[int]) -> Record:
    """What a record tells of a ranking. logits: (G,); targets: where in the gallery the right answers are."""
    scores = logits.cpu().numpy()
    return {f"{name}_rank": best_rank(scores, targets), f"{name}_top10": top_indices(scores, 10)}


def count(tally: Counter[str], record: Record) -> str:
    """Add a record to the running recall. Returns what the progress bar tells."""
    if record["status"] != "unreadable":
        tally.update(n=1, before=record["zero_shot_rank"] == 1, after=record["adapted_rank"] == 1)
    before, after = (100 * tally[name] / max(tally["n"], 1) for name in ("before", "after"))
    return f"R@1 {before:.1f} -> {after:.1f}"


def summarise(records: list[Record], direction: str, image_of: Sequence[int]) -> dict[str, Any]:
    """Metrics in percent; the gain in R@1 with its 95% interval.

    image_of: the image that each text belongs to; texts of one image are resampled together, being no independent
    samples. Raises UserError when no image could be read.
    """
    answered = [r for r in records if r["status"] != "unreadable"]
    if not answered:
        raise UserError("none of the images could be read; records.jsonl tells why")
    prefix = PREFIX[direction]
    summary: dict[str, Any] = {"n": len(answered), "unreadable": len(records) - len(answered)}
    first = {}
    for name in ("zero_shot", "adapted"):
        ranks = [r[f"{name}_rank"] for r in answered]
        first[name] = [rank == 1 for rank in ranks]
        recalls = {f"{prefix}_r{k}": recall_at_k(ranks, k) for k in CUTOFFS}
        summary[name] = {**recalls, f"{prefix}_r_mean": sum(recalls.values()) / len(recalls)}
    groups = [r["index"] if direction == "i2t" else image_of[r["index"]] for r in answered]
    interval = paired_bootstrap(first["zero_shot"], first["adapted"], groups=groups)
    gain, low, high = (100 * value for value in interval)
    summary[f"{prefix}_r1_gain"] = {"mean": gain, "low": low, "high": high}
    summary["non_finite"] = sum(r["status"] == "non-finite" for r in answered)
    summary["seconds_per_sample"] = sum(r["seconds"] for r in answered) / len(answered)
    return summary


def both_directions(i2t: dict[str, Any], t2i: dict[str, Any]) -> dict[str, Any]:
    """The recalls of both directions, and the mean of their means."""
    whole = {name: {**i2t[name], **t2i[name]} for name in ("zero_shot", "adapted")}
    for recalls in whole.values():
        recalls["r_mean"] = (recalls["txt_r_mean"] + recalls["img_r_mean"]) / 2
    return {"n": {"i2t": i2t["n"], "t2i": t2i["n"]}, **whole}


def as_line(name: str, method: str, summary: dict[str, Any]) -> str:
    prefix = "txt" if "txt_r1_gain" in summary else "img"

    def recalls(when: str) -> str:
        return " / ".join(f"{summary[when][f'{prefix}_r{k}']:.2f}" for k in CUTOFFS)

    line = f"{name}: n {summary['n']}, zero-shot R@1 / 5 / 10 {recalls('zero_shot')}"
    if method != "zeroshot":
        gain = summary[f"{prefix}_r1_gain"]
        line += f", {method} {recalls('adapted')}"
        line += f" (R@1 gain {gain['mean']:+.2f}, 95% interval {gain['low']:+.2f} to {gain['high']:+.2f})"
    line += f", {summary['seconds_per_sample']:.3f} s a query"
    for count, what in (
        (summary["non_finite"], "kept zero-shot (not finite)"),
        (summary["unreadable"], "unreadable"),
        (max(summary["truncated_texts"].values()), "texts longer than the context, cut"),
    ):
        line += f", {count} {what}" if count else ""
    return line
