"""The part of a run's summary that all tasks share: counts, seconds, gains, and the printed line."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike

from rlcf.errors import UserError
from rlcf.metrics import paired_bootstrap
from rlcf.run.memory import peak_memory_mb
from rlcf.run.records import Record, Run

Summary = dict[str, Any]
OK, NON_FINITE, UNREADABLE = "ok", "non-finite", "unreadable"
"""A record's status: its episode gave an answer; it was given up, and the zero-shot answer stands; no image."""


def answered(records: Sequence[Record]) -> list[Record]:
    """The records of samples that could be read. Raises UserError when there are none."""
    found = [record for record in records if record["status"] != UNREADABLE]
    if not found:
        raise UserError("none of the images could be read; records.jsonl tells why")
    return found


def counts(records: Sequence[Record]) -> Summary:
    """Numbers of samples by what became of them, and seconds a sample."""
    found = answered(records)
    return {
        "n": len(found),
        "unreadable": len(records) - len(found),
        "non_finite": sum(record["status"] == NON_FINITE for record in found),
        "seconds_per_sample": sum(record["seconds"] for record in found) / len(found),
        **early_ends(found),
    } | gate_savings(found)


def gate_savings(records: Sequence[Record]) -> Summary:
    """Number of samples that the gate left without an episode, and the seconds that this saved; empty without any."""
    seconds = {gated: [r["seconds"] for r in records if r.get("gated", False) == gated] for gated in (True, False)}
    if not seconds[True]:
        return {}
    saved = {}
    if seconds[False]:
        means = {gated: sum(values) / len(values) for gated, values in seconds.items()}
        saved["seconds_saved"] = len(seconds[True]) * (means[False] - means[True])
    return {"gated": len(seconds[True]), **saved}


def early_ends(records: Sequence[Record]) -> Summary:
    """Number of episodes that ended early, settled, and the mean steps of all; empty where none could end early."""
    taken = [record["steps_taken"] for record in records if "steps_taken" in record]
    if not taken:
        return {}
    return {"settled": sum(record.get("settled", False) for record in records), "mean_steps": sum(taken) / len(taken)}


def gain(before: ArrayLike, after: ArrayLike, scale: float = 1.0, groups: ArrayLike | None = None) -> dict[str, float]:
    """The mean gain with its 95% interval; see `paired_bootstrap`. scale: what all three numbers are multiplied by."""
    values = paired_bootstrap(before, after, groups=groups)
    return dict(zip(("mean", "low", "high"), (scale * value for value in values), strict=True))


def changes(before: Sequence[bool], after: Sequence[bool]) -> dict[str, int]:
    """Numbers of samples that adaptation put right, and that it spoilt. before, after: True for a right answer.

    >>> changes([False, False, True], [True, False, False])
    {'fixed': 1, 'spoilt': 1}
    """
    pairs = list(zip(before, after, strict=True))
    return {"fixed": pairs.count((False, True)), "spoilt": pairs.count((True, False))}


def interval(gained: Mapping[str, float], digits: int, name: str = "gain") -> str:
    """A gain as it is printed.

    >>> interval({"mean": 12.5, "low": 8.0, "high": 17.25}, digits=1)
    'gain +12.5, 95% interval +8.0 to +17.2'
    """
    mean, low, high = (f"{gained[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    return f"{name} {mean}, 95% interval {low} to {high}"


def tail(summary: Summary, sample: str, further: Sequence[tuple[int, str]] = ()) -> str:
    """The end of the printed line.

    sample: the name of a sample, "an image"; further: (count, words) pairs that are printed where the count is not 0.
    """
    agreed = f"without an episode, both models agree ({summary.get('seconds_saved', 0.0):.1f} s saved)"
    told = [(summary["non_finite"], "kept zero-shot (not finite)"), (summary["unreadable"], "unreadable")]
    settled = f"ended early, settled (mean {summary.get('mean_steps', 0.0):.1f} steps)"
    told += [(summary.get("gated", 0), agreed), (summary.get("settled", 0), settled), *further]
    line = f", {summary['seconds_per_sample']:.3f} s {sample}"
    return line + "".join(f", {count} {what}" for count, what in told if count)


def report(run: Run, name: str, summary: Summary, line: str, device: torch.device) -> None:
    """Write a summary into results.json and the log, and print its line; in the first process alone."""
    if not run.shard.first:
        return
    summary["peak_memory_mb"] = peak_memory_mb(device)
    run.report(name, summary)
    print(line, flush=True)
