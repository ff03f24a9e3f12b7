"""Records and metrics of retrieval: each query's ranking, and recall before and after, as in the LAVIS evaluation."""

from collections.abc import Iterable, Sequence

import numpy as np
from torch import Tensor

from rlcf.adapt.trace import TracedStep, names_in, trace_of
from rlcf.metrics import best_rank, recall_at_k, top_indices
from rlcf.run.loop import Figure
from rlcf.run.record_lines import Record
from rlcf.run.record_values import Kind, Kinds, number, place, same, steps_of, top
from rlcf.run.summary import Summary, changes, gain, in_one_pass, interval, tail

CUTOFFS = (1, 5, 10)
PREFIX = {"i2t": "txt", "t2i": "img"}
"""The beginning of a direction's metrics: what it finds."""
ANSWERS = ("zero_shot", "adapted")


def describe(name: str, logits: Tensor, targets: list[int]) -> Record:
    """A record's part about a ranking. logits: (G,); targets: places in the gallery of the right answers."""
    scores = logits.cpu().numpy()
    told = {f"{name}_rank": best_rank(scores, targets), f"{name}_top10": top_indices(scores, 10)}
    return told | {f"{name}_confidence": float(logits.softmax(dim=-1).max())}


def describe_names(record: Record, trace: Sequence[TracedStep], labels: Sequence[str]) -> Record:
    """A record's part that spells out its places in the gallery.

    record: its parts about both rankings and its "targets"; labels: the gallery's texts or paths. "names" holds each
    that the record or the steps mention.
    """
    tops = [record[f"{name}_top10"] for name in ANSWERS]
    found = {f"{name}_found": labels[first[0]] for name, first in zip(ANSWERS, tops, strict=True)}
    return found | {"names": names_in(trace, [*record["targets"], *tops[0], *tops[1]], labels)}


def kinds(record: Record, targets: list[int], labels: Sequence[str], steps: int) -> Kinds:
    """The kinds of what a record holds of both rankings. targets, labels: as above; steps: of an episode at most."""
    found: dict[str, Kind] = {"targets": same(targets)}
    for name in ANSWERS:
        found[f"{name}_rank"] = lambda value: place(len(labels) + 1)(value) and value > 0
        found[f"{name}_top10"] = top(10, len(labels))
        found[f"{name}_confidence"] = number(0, 1)
    found["steps"] = steps_of(record, steps, place(len(labels)))

    def spelt_out(key: str) -> Kind:
        return lambda value: same(describe_names(record, trace_of(record), labels)[key])(value)

    return found | {key: spelt_out(key) for key in (*(f"{name}_found" for name in ANSWERS), "names")}


R1 = Figure("R@1", lambda r: (100.0 * (r["zero_shot_rank"] == 1), 100.0 * (r["adapted_rank"] == 1)))


FIELDS = [("index", "i8"), *((f"{name}_rank", "i8") for name in ANSWERS)]
"""Fields and NumPy types of the array from which the metrics are computed, one row a record."""


def summarise(records: Iterable[Record], direction: str, image_of: Sequence[int]) -> Summary:
    """Metrics in percent; the gain in R@1 with its 95% interval.

    image_of: the image that each text belongs to; texts of one image are resampled together, being no independent
    samples. Raises UserError when no image could be read.
    """
    summary, found = in_one_pass(records, FIELDS, lambda record: tuple(record[name] for name, _ in FIELDS))
    prefix, first = PREFIX[direction], {}
    for name in ANSWERS:
        ranks = found[f"{name}_rank"]
        first[name] = ranks == 1
        recalls = {f"{prefix}_r{k}": recall_at_k(ranks, k) for k in CUTOFFS}
        summary[name] = {**recalls, f"{prefix}_r_mean": sum(recalls.values()) / len(recalls)}
    groups = found["index"] if direction == "i2t" else np.asarray(image_of)[found["index"]]
    gained = gain(first["zero_shot"], first["adapted"], scale=100.0, groups=groups)
    return summary | {f"{prefix}_r1_gain": gained} | changes(first["zero_shot"], first["adapted"])


def both_directions(i2t: Summary, t2i: Summary) -> Summary:
    """The recalls of both directions, and the mean of their means."""
    whole = {name: {**i2t[name], **t2i[name]} for name in ANSWERS}
    for recalls in whole.values():
        recalls["r_mean"] = (recalls["txt_r_mean"] + recalls["img_r_mean"]) / 2
    return {"n": {"i2t": i2t["n"], "t2i": t2i["n"]}, **whole}


def as_line(name: str, method: str | None, summary: Summary) -> str:
    """A direction's summary as it is printed."""
    prefix = "txt" if "txt_r1_gain" in summary else "img"

    def recalls(when: str) -> str:
        return " / ".join(f"{summary[when][f'{prefix}_r{k}']:.2f}" for k in CUTOFFS)

    line = f"{name}: n {summary['n']}, zero-shot R@1 / 5 / 10 {recalls('zero_shot')}"
    if method is not None:
        line += f", {method} {recalls('adapted')} ({interval(summary[f'{prefix}_r1_gain'], 2, 'R@1 gain')})"
    cut = (max(summary["truncated_texts"].values()), "texts longer than the context, cut")
    return line + tail(summary, "a query", [cut])


def both_as_line(name: str, method: str | None, whole: Summary) -> str:
    """The summary of both directions as it is printed."""
    before, after = (f"{whole[name]['r_mean']:.2f}" for name in ANSWERS)
    return f"{name}: zero-shot mean recall {before}" + ("" if method is None else f", {method} {after}")
