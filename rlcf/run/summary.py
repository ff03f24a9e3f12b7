"""The part of a run's summary that all tasks share: counts, seconds, gains, and the printed line."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from rlcf.errors import UserError
from rlcf.metrics import paired_bootstrap
from rlcf.run.memory import peak_memory_mb
from rlcf.run.record_lines import Record
from rlcf.run.run import Run

Summary = dict[str, Any]
OK, NON_FINITE, UNREADABLE = "ok", "non-finite", "unreadable"
"""A record's status: its episode gave an answer; it was given up, and the zero-shot answer stands; no image."""

NOT_TOLD = -1
"""The steps of a record that tells none."""
SHARED = [("non_finite", "?"), ("gated", "?"), ("settled", "?"), ("steps_taken", "i4"), ("seconds", "f8")]
"""What the counts need of a record: names and NumPy types."""


def in_one_pass(
    records: Iterable[Record], fields: Sequence[tuple[str, str]], of: Callable[[Record], tuple[Any, ...]]
) -> tuple[Summary, np.ndarray]:
    """What metrics need of a dataset's records, without holding them.

    fields: names and NumPy types of a record's numbers; of: from a record to these. Returns the counts of the samples
    by what became of them, with the seconds a sample, and (N,) rows with the fields, of the N records that could be
    read. Raises UserError when there are none.
    """
    unreadable = 0

    def rows() -> Iterator[tuple[Any, ...]]:
        nonlocal unreadable
        for record in records:
            if record["status"] == UNREADABLE:
                unreadable += 1
            else:
                ended = record.get("gated", False), record.get("settled", False), record.get("steps_taken", NOT_TOLD)
                yield record["status"] == NON_FINITE, *ended, record["seconds"], *of(record)

    found = np.fromiter(rows(), [*SHARED, *fields])
    if not len(found):
        raise UserError("none of the images could be read; records.jsonl tells why")
    counts: Summary = {
        "n": len(found),
        "unreadable": unreadable,
        "non_finite": int(found["non_finite"].sum()),
        "seconds_per_sample": float(found["seconds"].mean()),
        **_early_ends(found["settled"], found["steps_taken"]),
    }
    return counts | _gate_savings(found["seconds"], found["gated"]), found


def answered(records: Iterable[Record]) -> Iterator[Record]:
    """The records of samples that could be read."""
    return (record for record in records if record["status"] != UNREADABLE)


def _gate_savings(seconds: np.ndarray, gated: np.ndarray) -> Summary:
    """Number of samples that the gate left without an episode, and the seconds that this saved; empty without any."""
    count = int(gated.sum())
    if not count:
        return {}
    others = {} if gated.all() else {"seconds_saved": count * float(seconds[~gated].mean() - seconds[gated].mean())}
    return {"gated": count, **others}


def _early_ends(settled: np.ndarray, steps: np.ndarray) -> Summary:
    """Number of episodes that ended early, settled, and the mean steps of all; empty where none could end early."""
    taken = steps[steps != NOT_TOLD]
    return {"settled": int(settled.sum()), "mean_steps": float(taken.mean())} if len(taken) else {}


def gain(before: ArrayLike, after: ArrayLike, scale: float = 1.0, groups: ArrayLike | None = None) -> dict[str, float]:
    """The mean gain with its 95% interval; see `paired_bootstrap`. scale: what all three numbers are multiplied by."""
    values = paired_bootstrap(before, after, groups=groups)
    return dict(zip(("mean", "low", "high"), (scale * value for value in values), strict=True))


def changes(before: ArrayLike, after: ArrayLike) -> dict[str, int]:
    """Numbers of samples that adaptation put right, and that it spoilt. before, after: (N,) True for a right answer.

    >>> changes([False, False, True], [True, False, False])
    {'fixed': 1, 'spoilt': 1}
    """
    then, now = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    return {"fixed": int((~then & now).sum()), "spoilt": int((then & ~now).sum())}


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
