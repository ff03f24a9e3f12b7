"""One dataset's records: appended sample by sample, and taken up again after a stop.

In the dataset's folder each process appends to its own records.part<rank>.jsonl, and starting again skips what any part
holds; at the end the parts become records.jsonl. No record is held: a run keeps a few numbers of each while it begins.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from rlcf.errors import UserError
from rlcf.run.carried import MEMORY_FILE, Memory, load_memory, save_memory
from rlcf.run.dealing import Dealt, left_to_do
from rlcf.run.finished import Finished, read_finished
from rlcf.run.kept import NONE, Fits, Keeper, Numbers, Shown, is_episode, shown
from rlcf.run.parts import Part
from rlcf.run.record_lines import Record, repeated
from rlcf.run.shard import Shard


class _Begun(NamedTuple):
    """What the first process tells the others.

    known: number of records; left: samples to do, in order; parts: count and bytes of each part, by its file's name.
    """

    complete: bool
    known: int
    shown: Shown
    left: np.ndarray
    parts: dict[str, tuple[int, int]]


class Records:
    """One dataset's records; a method's memory is kept beside them.

    A record holds its sample's "index" and "id", its "status", "ok" when its episode gave an answer, and "gated", true
    where it needed no episode.
    `with records:` around the loop over samples keeps the memory also when the loop is left early.
    key: of the checksums; ids: of all samples, by index; arrays: name -> width of float rows that are kept beside each
    record; described: metadata of their file; numbers: of a record for the progress bar; fits: whether a run writes a
    record's values.
    count: records that this process knows: those that were there and its own; complete: True when every process had
    finished; shown: the numbers of the records that were there. The first process reads, and `todo` tells the others.
    Raises UserError for records that are damaged, repeated or of other samples.
    """

    def __init__(
        self,
        folder: Path,
        shard: Shard,
        key: bytes,
        ids: Sequence[str],
        memory: Memory | None = None,
        arrays: Mapping[str, int] | None = None,
        described: Mapping[str, str] | None = None,
        numbers: Numbers = lambda record: None,
        fits: Fits = lambda record, row: True,
    ) -> None:
        self.folder, self.shard, self.key, self.memory = folder, shard, key, memory
        self.arrays = dict(arrays or {})
        self.keeper = Keeper(folder, ids, numbers, fits)
        self.finished = Finished(folder, key, self.arrays, described or {})
        self.part = self._part(folder / f"records.part{shard.rank}.jsonl")
        self.parts: list[Part] = []
        self.complete, self.count, self.shown, self.episodes = False, 0, Shown(), 0
        self._whole = NONE  # of the records of a dataset that is finished
        shard.let_first(self._read)

    def todo(self, order: Sequence[int], at_once: int = 1) -> Dealt:
        """This process's share of the samples that have no record yet, dealt by groups; see `left_to_do`.

        at_once: samples of a group, which is done as a whole, whatever the number of processes: where some of its
        records are missing the others are forgotten. A dataset that was finished with a lower --limit goes on. Raises
        UserError when the records tell of more samples than the order has.
        """
        begun = self.shard.from_first(lambda: self._begin(order, at_once))
        self.complete, self.count, self.shown = begun.complete, begun.known, begun.shown
        if not self.shard.first:
            self.part.know(*begun.parts.get(self.part.file.name, (0, 0)))
        return Dealt(begun.left, at_once, self.shard.numbers())

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self.memory is not None:
            self._save_memory(self.memory)

    def add(self, record: Record, arrays: Mapping[str, Tensor] | None = None) -> None:
        """Append one record."""
        row = b""
        if self.arrays:
            given = {name: row.cpu().numpy() for name, row in (arrays or {}).items()}
            flat = [given.get(name, np.full(width, np.nan)) for name, width in self.arrays.items()]
            row = np.concatenate(flat).astype("<f4").tobytes()
        self.part.append(record, row)
        self.count += 1
        self.episodes += is_episode(record)
        if self.memory is not None and self.count % self.memory.every == 0:
            self._save_memory(self.memory)

    def finish(self, may_grow: bool = False) -> Finished:
        """Wait for every process; the first one merges the parts. Returns all records, by index.

        may_grow: keep the memory too, with which a higher --limit goes on. Raises UserError where this process's files
        are not as it wrote them.
        """
        if not self.complete:
            self.part.require_whole()
        self.shard.wait()
        self.shard.let_first(lambda: self._merge(may_grow))
        self.complete = True
        return self.finished

    def saved_arrays(self) -> dict[str, Tensor]:
        """After `finish`: name -> (N, width), rows as in records.jsonl."""
        return load_file(self.finished.logits_file)

    # ---- of the first process ----

    def _read(self) -> None:
        """Read what is there, and cut what is not whole from the files."""
        self.complete = self.finished.file.exists()
        if self.complete:
            self._whole = read_finished(self.finished, self.keeper)
        else:
            self._read_parts()
            if self.memory is not None:
                load_memory(self.folder / MEMORY_FILE, self.memory, self.part)
            self._cut_files()
        self._count()

    def _read_parts(self) -> None:
        """Read the parts of all processes. Raises UserError for a sample that two of them hold."""
        files = {file.with_suffix(".jsonl") for file in self.folder.glob("records.part*")} - {self.part.file}
        self.parts = sorted([self.part, *map(self._part, files)], key=lambda part: part.file)
        for number, part in enumerate(self.parts):
            part.read(self.keeper)
            before = self.keeper.done(*(other.kept for other in self.parts[:number]))
            again = np.flatnonzero(before[part.kept["index"]])
            if len(again):
                raise repeated(part.file, int(again[0]) + 1)

    def _part(self, file: Path) -> Part:
        return Part(file, sum(self.arrays.values()), self.key)

    @property
    def _kept(self) -> list[np.ndarray]:
        return [self._whole] if self.complete else [part.kept for part in self.parts]

    def _count(self) -> None:
        self.count = sum(map(len, self._kept))
        self.episodes = sum(int(kept["episode"].sum()) for kept in self._kept)

    def _begin(self, order: Sequence[int], at_once: int) -> _Begun:
        """Forget the records of groups that are not whole; then nothing but the counts of the others is kept."""
        done = self.keeper.done(*self._kept)
        if int(done[np.asarray(order, np.int64)].sum()) < int(done.sum()):
            raise UserError(
                f"{self.folder} holds {self.count} samples and --limit {len(order)} leaves out some of them; "
                "give a higher --limit, or choose another --output"
            )
        if self.complete and self.count < len(order):
            self._reopen(order)
        left, begun = left_to_do(order, self.keeper.done(*self._kept), at_once)
        while len(begun):  # a part is cut from its end, which may break into further groups
            for part in self.parts:
                places = np.flatnonzero(np.isin(part.kept["index"], begun))
                part.cut(int(places[0]) if len(places) else part.count)
            left, begun = left_to_do(order, self.keeper.done(*self._kept), at_once)
        self._cut_files()
        self._count()
        parts = {part.file.name: (part.count, part.size) for part in self.parts}
        told = _Begun(self.complete, self.count, shown(*self._kept), left, parts)
        self._forget()
        return told

    def _forget(self) -> None:
        self._whole = NONE
        for part in self.parts:
            part.forget()

    def _cut_files(self) -> None:
        for part in self.parts:
            part.cut_files()

    def _reopen(self, order: Sequence[int]) -> None:
        """Go on with a dataset that was finished: its records are this process's part again, in their order."""
        place = np.empty(len(self.keeper.ids), np.int64)
        place[order] = np.arange(len(order))
        visited = np.argsort(place[self._whole["index"]])
        for file in self.folder.glob("records.part*"):  # of a stop in the middle of this
            file.unlink()
        self.finished.take_apart(self.part, self._whole, visited)
        self._read()

    def _merge(self, may_grow: bool) -> None:
        """Make the files of a finished dataset of the parts, unless they are made; then remove the parts.

        may_grow: as in `finish`.
        """
        if not self.complete:
            self._read_parts()
            self.finished.write(self.parts)
            self._forget()
        for file in self.folder.glob("records.part*"):
            file.unlink(missing_ok=True)
        if not may_grow:
            (self.folder / MEMORY_FILE).unlink(missing_ok=True)

    def _save_memory(self, memory: Memory) -> None:
        """Write the memory to its file, unless it is ahead of the records after a stop in the middle of a sample."""
        if memory.updates == self.episodes:
            save_memory(self.folder / MEMORY_FILE, memory, self.part)
