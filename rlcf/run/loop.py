"""The loop over samples: read, adapt, record, and show how it goes."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor
from tqdm import tqdm

from rlcf.adapt.groups import Adapt, Unreadable, in_groups
from rlcf.progress import duration, progress_bar
from rlcf.run.folder import logger
from rlcf.run.images import refuse_or_skip
from rlcf.run.memory import out_of_memory_told
from rlcf.run.records import Memory, Record, Run, shuffled
from rlcf.run.settings import Config
from rlcf.run.summary import UNREADABLE

WORTH_TELLING = 20.0
"""Seconds that a run must take for its speed to be told after the first sample."""
Sample = TypeVar("Sample")
Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Figure:
    """A figure of the progress bar: the mean of a number before and after adaptation.

    name: what it is called; of: from a record to its two numbers, None for a record without them; digits: after the
    point.
    """

    name: str
    of: Callable[[Record], tuple[float, float] | None]
    digits: int = 1


@dataclass(frozen=True)
class Work(Generic[Sample, Outcome]):
    """One dataset, or one direction of it, as the loop needs it.

    name: of its folder and its progress bar; ids: of all samples, by index; samples: from the indices that are left to
    (index, sample or `Unreadable`); adapt: see `rlcf.adapt.groups`; about: what a record holds of a sample, whatever
    becomes of it; describe: what a record holds of an outcome, with its "status", and its rows of `arrays`; figure: for
    the progress bar; at_once: samples that are adapted to at once; memory: what the method carries from sample to
    sample; arrays, described: as in `Records`; contents, images: as in `Run.records`.
    """

    name: str
    ids: Sequence[str]
    samples: Callable[[Sequence[int]], Iterator[tuple[int, Sample | Unreadable]]]
    adapt: Adapt[Sample, Outcome]
    about: Callable[[int], Record]
    describe: Callable[[int, Outcome], tuple[Record, Mapping[str, Tensor]]]
    figure: Figure
    at_once: int = 1
    memory: Memory | None = None
    arrays: Mapping[str, int] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None


def run_samples(work: Work[Sample, Outcome], config: Config, run: Run) -> list[Record]:
    """Adapt to every sample that has no record yet. Returns the records of all, by index.

    Raises UserError for a sample that cannot be read, unless `config.skip_bad_images`, and for a lack of memory.
    """
    records = run.records(work.name, work.memory, work.arrays, work.described, work.contents, work.images)
    order = shuffled(len(work.ids), config.seed, config.limit)
    todo = records.todo(order, work.ids, work.at_once)
    shown = _Mean(work.figure)
    for record in records.written:
        shown.add(record)
    outcomes = in_groups(work.samples(todo), work.at_once, work.adapt)
    done, untold = len(records.done), run.shard.first
    # Left in turn: the records keep the memory, then it is forgotten.
    with (
        out_of_memory_told(config),
        work.memory or nullcontext(),
        records,
        progress_bar(outcomes, desc=work.name, initial=done, total=done + len(todo)) as progress,
    ):
        for number, (index, outcome, seconds) in enumerate(progress):
            record = {"index": index, "id": work.ids[index]} | work.about(index)
            if isinstance(outcome, Unreadable):
                refuse_or_skip(outcome, config.skip_bad_images)
                records.add(record | {"status": UNREADABLE, "reason": outcome.reason})
                continue
            described, arrays = work.describe(index, outcome)
            record |= described | {"seconds": seconds}
            records.add(record, arrays)
            if untold and not record.get("gated"):
                untold = False
                _tell_speed(work.name, seconds, len(todo) - number - 1)
            progress.set_postfix_str(shown.add(record), refresh=False)
    return records.finish(may_grow=len(order) < len(work.ids))


def _tell_speed(name: str, seconds: float, left: int) -> None:
    """Tell what the first sample took, and about how long the others of this process will; nothing of a short while."""
    if seconds * left >= WORTH_TELLING:
        whole = duration(seconds * left)  # at most: the first one takes along what is done once
        first = f"{seconds:.2g} s" if seconds < 60 else duration(seconds)
        line = f"{name}: {first} for the first sample, at most about {whole} for the {left} left"
        tqdm.write(line, file=sys.stderr)
        logger.info(line)


class _Mean:
    """The running mean of a figure."""

    def __init__(self, figure: Figure) -> None:
        self.figure, self.n, self.before, self.after = figure, 0, 0.0, 0.0

    def add(self, record: Record) -> str:
        """Count a record. Returns what the progress bar shows."""
        values = None if record["status"] == UNREADABLE else self.figure.of(record)
        if values is not None:
            self.n, self.before, self.after = self.n + 1, self.before + values[0], self.after + values[1]
        if not self.n:
            return ""
        before, after = (f"{total / self.n:.{self.figure.digits}f}" for total in (self.before, self.after))
        return f"{self.figure.name} {before} -> {after}"
