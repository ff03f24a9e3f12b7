"""The loop over samples: read, adapt, record, and show how it goes."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from torch import Tensor
from tqdm import tqdm

from rlcf.adapt.groups import Adapt, Unreadable, in_groups
from rlcf.progress import duration, progress_bar
from rlcf.run.carried import Memory
from rlcf.run.dealing import Dealt, shuffled
from rlcf.run.folder import logger
from rlcf.run.images import refuse_or_skip
from rlcf.run.kept import Shown
from rlcf.run.memory import out_of_memory_told
from rlcf.run.record_lines import Record
from rlcf.run.record_values import Kinds, is_as_written
from rlcf.run.run import Run
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

    def numbers(self, record: Record) -> tuple[float, float] | None:
        """The record's two numbers; None also for a sample that could not be read."""
        return None if record["status"] == UNREADABLE else self.of(record)

    def text(self, shown: Shown) -> str:
        """The means of so many records' numbers as the progress bar shows them; empty without any."""
        if not shown.n:
            return ""
        before, after = (f"{total / shown.n:.{self.digits}f}" for total in (shown.before, shown.after))
        return f"{self.name} {before} -> {after}"


@dataclass(frozen=True)
class Work(Generic[Sample, Outcome]):
    """One dataset, or one direction of it, as the loop needs it.

    name: of its folder and its progress bar; ids: of all samples, by index; samples: from the indices that this process
    gets, one by one, to (index, sample or `Unreadable`); adapt: see `rlcf.adapt.groups`; about: what a record holds of
    a sample, whatever becomes of it; describe: what a record holds of an outcome, with its "status", and its rows of
    `arrays`; kinds: those of what `describe` puts into a record; figure: for the progress bar; at_once: samples
    that are adapted to at once; memory: what the method carries from sample to sample; arrays, described: as in
    `Records`; contents, images: as in `Run.records`.
    """

    name: str
    ids: Sequence[str]
    samples: Callable[[Dealt], Iterator[tuple[int, Sample | Unreadable]]]
    adapt: Adapt[Sample, Outcome]
    about: Callable[[int], Record]
    describe: Callable[[int, Outcome], tuple[Record, Mapping[str, Tensor]]]
    kinds: Callable[[Record], Kinds]
    figure: Figure
    at_once: int = 1
    memory: Memory | None = None
    arrays: Mapping[str, int] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    images: Path | None = None


def run_samples(work: Work[Sample, Outcome], config: Config, run: Run) -> Iterable[Record]:
    """Adapt to every sample that has no record yet. Returns the records of all, by index, as a stream from their file.

    Raises UserError for a sample that cannot be read, unless `config.skip_bad_images`, and for a lack of memory.
    """
    records = run.records(
        work.name,
        work.ids,
        work.memory,
        work.arrays,
        work.described,
        work.contents,
        work.images,
        work.figure.numbers,
        lambda record, row: is_as_written(record, row, work.about(record["index"]), work.kinds),
    )
    order = shuffled(len(work.ids), config.seed, config.limit)
    todo = records.todo(order, work.at_once)
    shown, untold = records.shown, run.shard.first
    outcomes = in_groups(work.samples(todo), work.at_once, work.adapt)
    begun, everything = records.count, records.count + len(todo)
    hidden = not run.shard.first  # its bar counts the samples of all processes
    # Left in turn: the records keep the memory, then it is forgotten.
    with (
        out_of_memory_told(config),
        work.memory or nullcontext(),
        records,
        progress_bar(desc=work.name, initial=begun, total=everything, disable=hidden) as progress,
    ):
        for number, (index, outcome, seconds) in enumerate(outcomes, start=1):
            record = {"index": index, "id": work.ids[index]} | work.about(index)
            arrays: Mapping[str, Tensor] = {}
            if isinstance(outcome, Unreadable):
                refuse_or_skip(outcome, config.skip_bad_images)
                record |= {"status": UNREADABLE, "reason": outcome.reason}
            else:
                described, arrays = work.describe(index, outcome)
                record |= described | {"seconds": seconds}
            records.add(record, arrays)
            if untold and "seconds" in record and not record.get("gated"):
                untold = False
                _tell_speed(work.name, seconds, (len(todo) - todo.others - number) // run.shard.count)
            shown = shown.plus(work.figure.numbers(record))
            progress.set_postfix_str(work.figure.text(shown), refresh=False)
            progress.update(begun + todo.others + number - progress.n)
    return records.finish(may_grow=len(order) < len(work.ids))


def _tell_speed(name: str, seconds: float, left: int) -> None:
    """Tell what the first sample took, and about how long the others of this process will; nothing of a short while."""
    if seconds * left >= WORTH_TELLING:
        whole = duration(seconds * left)  # at most: the first one takes along what is done once
        first = f"{seconds:.2g} s" if seconds < 60 else duration(seconds)
        line = f"{name}: {first} for the first sample, at most about {whole} for the {left} left"
        tqdm.write(line, file=sys.stderr)
        logger.info(line)
