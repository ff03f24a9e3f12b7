"""What a run keeps of the records that it has read: a few numbers each."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rlcf.errors import UserError
from rlcf.run.record_lines import Line, Record, damaged, repeated

KEPT = np.dtype([("index", "<i8"), ("end", "<i8"), ("episode", "?"), ("before", "<f8"), ("after", "<f8")])
"""Of a record, 33 bytes: its sample's index; the bytes of its file up to the end of its line; True where an episode
gave its answer; the numbers of the progress bar, NaN for none."""

NONE = np.empty(0, KEPT)
Numbers = Callable[[Record], tuple[float, float] | None]
"""From a record to its two numbers for the progress bar, before and after adaptation; None for one without."""

Fits = Callable[[Record, bytes], bool]
"""From a record, and its row of the arrays beside it, to whether a run writes such values."""


class Shown(NamedTuple):
    """What a progress bar shows: a count of records, and the sums of their numbers before and after."""

    n: int = 0
    before: float = 0.0
    after: float = 0.0

    def plus(self, values: tuple[float, float] | None) -> "Shown":
        """With a further record's numbers."""
        return self if values is None else Shown(self.n + 1, self.before + values[0], self.after + values[1])


class Keeper:
    """Keeps of a dataset's records what a run needs of them.

    ids: of all samples, by index; folder: of the dataset, for errors; numbers, fits: as in `Numbers` and `Fits`.
    """

    def __init__(self, folder: Path, ids: Sequence[str], numbers: Numbers, fits: Fits) -> None:
        self.folder, self.ids, self.numbers, self.fits = folder, ids, numbers, fits

    def keep(self, file: Path, lines: Iterable[Line]) -> np.ndarray:
        """(N,) of `KEPT`, of the file's N whole records. lines: from `read_lines`.

        Raises UserError as that, for a record of another sample, and naming the line that repeats a sample or whose
        values no run writes.
        """
        torn: list[int] = []  # indices behind the whole records, few unless the checksums have gone

        def rows() -> Iterable[tuple[int, int, bool, float, float]]:
            for number, (record, end, row) in enumerate(lines, start=1):
                if row is None:
                    torn.append(record["index"])
                else:
                    self._require_own(record)
                    if not self.fits(record, row):
                        raise damaged(file, number)
                    yield self._row(record, end)

        kept = np.fromiter(rows(), KEPT)
        again = _first_repeated(np.concatenate([kept["index"], np.array(torn, "<i8")]))
        if again is not None:
            raise repeated(file, again + 1)
        return kept

    def _require_own(self, record: Record) -> None:
        index = record["index"]
        if index >= len(self.ids) or self.ids[index] != record["id"]:
            raise UserError(f"{self.folder} was begun with other samples than there are now; choose another --output")

    def _row(self, record: Record, end: int) -> tuple[int, int, bool, float, float]:
        before, after = self.numbers(record) or (np.nan, np.nan)
        return record["index"], end, is_episode(record), before, after

    def done(self, *files: np.ndarray) -> np.ndarray:
        """(number of ids,) True for a sample that one of the files has a record of."""
        found = np.zeros(len(self.ids), bool)
        for kept in files:
            found[kept["index"]] = True
        return found


def is_episode(record: Record) -> bool:
    """True for a record whose answer came from an episode, which a method's memory has seen."""
    return record["status"] == "ok" and not record.get("gated", False)


def shown(*files: np.ndarray) -> Shown:
    """The numbers of all records for the progress bar."""
    before, after = (np.concatenate([NONE[name], *(kept[name] for kept in files)]) for name in ("before", "after"))
    having = ~np.isnan(before)
    return Shown(int(having.sum()), float(before[having].sum()), float(after[having].sum()))


def _first_repeated(indices: np.ndarray) -> int | None:
    """The first place whose index stands at a lower place too; None where there is none."""
    order = np.argsort(indices, kind="stable")
    again = order[1:][indices[order[1:]] == indices[order[:-1]]]
    return int(again.min()) if len(again) else None
