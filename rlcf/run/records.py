"""A run and its records: they survive an interruption, and results are written in one piece.

output/<run>/config.yaml, log.txt, results.json and per dataset <dataset>/identity.json, images.json and records.jsonl.
While a dataset runs, each process appends to its own <dataset>/records.part<rank>.jsonl, and starting again skips what
any part holds; at the end the parts become records.jsonl.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from rlcf.digests import digest_of, digest_of_tensors
from rlcf.errors import UserError
from rlcf.run.config import command_line
from rlcf.run.files import file_name, write_atomically
from rlcf.run.folder import commit, logger, open_run_folder, tell, versions
from rlcf.run.identity import fixed_settings, keep_identity, read_identity
from rlcf.run.parts import SUM, Part, Record, read_whole, repeated, rows_of
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from rlcf.run.tensor_files import save_atomically, save_rows_atomically

MEMORY_FILE = "momentum.safetensors"
IMAGES_FILE = "images.json"


class Memory(Protocol):
    """State that a method carries from one sample to the next, such as a momentum buffer.

    `with memory:` forgets it when it is left.
    """

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def updates(self) -> int:
        """Number of samples that have changed it."""

    @property
    def every(self) -> int:
        """Number of samples between two times that it is written to disk."""

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state, as tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`; an empty state is that of a fresh memory."""


class Run:
    """One run folder. `with run:` holds it until it is left.

    Raises UserError as `open_run_folder`.
    """

    def __init__(self, config: Config, shard: Shard) -> None:
        self.folder, self.config, self.shard = Path(config.output), config, shard
        self._held = ExitStack()
        shard.let_first(lambda: self._held.enter_context(open_run_folder(config, _datasets_begun)))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def tell(self, lines: Sequence[str]) -> None:
        """Put what a user should know on standard error and into the log; in the first process alone."""
        for line in lines if self.shard.first else ():
            tell(line)

    def folder_of(self, dataset: str) -> Path:
        """The dataset's folder in the run's."""
        return self.folder / file_name(dataset)

    def records(
        self,
        dataset: str,
        memory: Memory | None = None,
        arrays: Mapping[str, int] | None = None,
        described: Mapping[str, str] | None = None,
        contents: Mapping[str, str] | None = None,
        images: Path | None = None,
    ) -> "Records":
        """The dataset's records; see `Records`.

        contents: name of a list or model that a record depends on -> its digest; images: the folder that the samples'
        ids start from, kept in `IMAGES_FILE` for those who look at the records; it is no part of the run's identity,
        since images may move. Raises UserError when the records that are there are of others or damaged, and when the
        folder cannot be read or written.
        """
        folder = self.folder_of(dataset)

        def keep() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            keep_identity(folder, self.config, contents or {}, _is_begun(folder))
            if images is not None:
                write_atomically(folder / IMAGES_FILE, json.dumps({"folder": str(images.absolute())}) + "\n")

        try:
            self.shard.let_first(keep)
            return Records(folder, self.shard, read_identity(folder).key, memory, arrays, described)
        except OSError as error:
            raise UserError(f"cannot use the folder {folder} ({error}); choose another --output") from error

    def report(self, dataset: str, metrics: dict[str, Any]) -> None:
        """Put one dataset's metrics into results.json and the log."""
        file, settings = self.folder / "results.json", fixed_settings(self.config)
        datasets = _read_results(file, settings) | {dataset: metrics}
        told = {"command": command_line(), "seed": self.config.seed, "versions": versions(), "commit": commit()}
        results = {"datasets": datasets, **told, "checksum": digest_of([settings, datasets])}
        write_atomically(file, json.dumps(results, indent=2) + "\n")
        logger.info("%s: %s", dataset, json.dumps(metrics))


def _read_results(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Dataset -> metrics in a file; none where they are not as they were written by a run with these settings."""
    if not file.exists():
        return {}
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["checksum"] == digest_of([settings, held["datasets"]]):
            return dict(held["datasets"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    logger.info("%s was damaged or of another run: it is written anew", file)
    return {}


def _datasets_begun(folder: Path) -> list[Path]:
    return sorted({file.parent for file in folder.glob("*/records*") if _is_begun(file.parent)})


def _is_begun(folder: Path) -> bool:
    """True for a dataset's folder that holds records."""
    return any(file.stat().st_size for file in folder.glob("records*.jsonl"))


class Records:
    """One dataset's records, appended sample by sample; a method's memory is kept beside them.

    A record holds its sample's "index" and "id", its "status", "ok" when its episode gave an answer, and "gated", true
    where it needed no episode.
    `with records:` around the loop over samples keeps the memory also when the loop is left early.
    key: of the checksums; arrays: name -> width of float rows that are kept beside each record; described: metadata of
    their file.
    written: the records that are there; done: their samples' indices; complete: True when every process had finished.
    """

    def __init__(
        self,
        folder: Path,
        shard: Shard,
        key: bytes,
        memory: Memory | None = None,
        arrays: Mapping[str, int] | None = None,
        described: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.shard, self.key, self.memory = folder, shard, key, memory
        self.arrays, self.described = dict(arrays or {}), dict(described or {})
        self.file, self.sums_file = folder / "records.jsonl", folder / "records.sums"
        self.logits_file = folder / "logits.safetensors"
        self.complete = self.file.exists()
        self.parts: dict[Path, Part] = {}
        self.written: list[Record] = []
        shard.let_first(self._read)
        if not shard.first:
            self._read()
        shard.wait()

    @property
    def done(self) -> set[int]:
        return {record["index"] for record in self.written}

    def todo(self, order: Sequence[int], ids: Sequence[str], at_once: int = 1) -> list[int]:
        """This process's share of the samples that have no record yet, in their order.

        ids: of all samples, by index; at_once: samples of a group. A group is of the samples that stand together in the
        order, whatever the number of processes, and it is done as a whole: where some of its records are missing the
        others are forgotten. The share is of whole groups, and only the order's last one may be smaller: the share
        falls into its groups again when it is cut every `at_once` samples. A dataset that was finished with a lower
        --limit goes on. Raises UserError when the records tell of other samples, or of more than the order has.
        """
        if not all(r["index"] < len(ids) and r["id"] == ids[r["index"]] for r in self.written):
            raise UserError(f"{self.folder} was begun with other samples than there are now; choose another --output")
        if not self.done.issubset(order):
            raise UserError(
                f"{self.folder} holds {len(self.written)} samples and --limit {len(order)} leaves out some of them; "
                "give a higher --limit, or choose another --output"
            )
        if self.complete and len(self.done) < len(order):
            self._reopen(order)
        groups, done = [order[i : i + at_once] for i in range(0, len(order), at_once)], self.done
        left = [group for group in groups if not done.issuperset(group)]
        while half_done := done & {index for group in left for index in group}:
            for part in self.parts.values():
                part.cut(next((i for i, r in enumerate(part.records) if r["index"] in half_done), len(part.records)))
            self.written = [record for part in self.parts.values() for record in part.records]
            done = self.done
            left = [group for group in left if not done.issuperset(group)]
        self.shard.let_first(self._cut_files)
        return [index for group in left[self.shard.rank :: self.shard.count] for index in group]

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
        self.written.append(record)
        if self.memory is not None and len(self.written) % self.memory.every == 0:
            self._save_memory(self.memory)

    def finish(self, may_grow: bool = False) -> list[Record]:
        """Wait for every process; the first one merges the parts. Returns all records, by index.

        may_grow: keep the memory too, with which a higher --limit goes on. Raises UserError where this process's files
        are not as it wrote them.
        """
        if not self.file.exists():
            self.part.require_whole()
        self.shard.wait()
        self.shard.let_first(lambda: self._merge(may_grow))
        self.complete = True
        return [json.loads(line) for line in self.file.read_bytes().splitlines()]

    def saved_arrays(self) -> dict[str, Tensor]:
        """After `finish`: name -> (N, width), rows as in records.jsonl."""
        return load_file(self.logits_file)

    @property
    def part_file(self) -> Path:
        return self.folder / f"records.part{self.shard.rank}.jsonl"

    @property
    def part(self) -> Part:
        """The records of this process."""
        return self.parts[self.part_file]

    def _read(self) -> None:
        """Read what is there; the first process also cuts what is not whole from the files."""
        if self.complete:
            self.written = read_whole(
                self.file, self.sums_file, self.key, self.logits_file, self.arrays, self.described
            )
            return
        self._read_parts()
        if self.memory is not None:
            self._load_memory(self.memory)
        self.written = [record for part in self.parts.values() for record in part.records]
        if self.shard.first:
            self._cut_files()

    def _reopen(self, order: Sequence[int]) -> None:
        """Go on with a dataset that was finished: its records are the first process's part again, in their order."""
        self.shard.let_first(lambda: self._take_apart(order))
        self.complete = False
        self.shard.let_first(self._read)
        if not self.shard.first:
            self._read()
        self.shard.wait()

    def _take_apart(self, order: Sequence[int]) -> None:
        """Make a part of records.jsonl and logits.safetensors, then remove them; the reverse of `_merge`."""
        place = {index: number for number, index in enumerate(order)}
        visited = sorted(range(len(self.written)), key=lambda row: place[self.written[row]["index"]])
        lines, sums = self.file.read_bytes().split(b"\n"), self.sums_file.read_bytes()
        rows = rows_of(self.logits_file, self.arrays, len(visited), self.described, visited) if self.arrays else ()
        for file in self.folder.glob("records.part*"):  # of a stop in the middle of this
            file.unlink()
        part = Part(self.part_file, sum(self.arrays.values()), self.key)
        part.fill([lines[row] for row in visited], [sums[SUM * row : SUM * (row + 1)] for row in visited], rows)
        for file in (self.file, self.sums_file, self.logits_file):
            file.unlink(missing_ok=True)

    def _read_parts(self) -> None:
        """Read the parts of all processes. Raises UserError for a sample that two of them hold."""
        files = {self.part_file, *(file.with_suffix(".jsonl") for file in self.folder.glob("records.part*"))}
        self.parts = {file: Part(file, sum(self.arrays.values()), self.key) for file in sorted(files)}
        seen: set[int] = set()
        for part in self.parts.values():
            part.read()
            for number, record in enumerate(part.records, start=1):
                if record["index"] in seen:
                    raise repeated(part.file, number)
            seen |= {record["index"] for record in part.records}

    def _save_memory(self, memory: Memory) -> None:
        """Write the memory to its file, unless it is ahead of the records after a stop in the middle of a sample."""
        if memory.updates == sum(record["status"] == "ok" and not record.get("gated") for record in self.written):
            state, count = memory.state_dict(), len(self.part.records)
            told = {"count": str(count), "seen": self._seen(count), "tensors": digest_of_tensors(state)}
            save_atomically(self.folder / MEMORY_FILE, state, told)

    def _load_memory(self, memory: Memory) -> None:
        """Read the memory from its file, and forget the records that came after it: their samples are done again.

        Raises UserError for a file that is damaged, and for one that has seen other samples than the records tell of.
        """
        file, there = self.folder / MEMORY_FILE, len(self.part.records)
        state, count, seen = _read_memory(file) if file.exists() else ({}, 0, self._seen(0))
        if count > there or seen != self._seen(count):
            raise UserError(
                f"{file} has seen {count} samples, which are not those of the {there} records beside it; delete it to "
                "start the dataset afresh"
            )
        if count < there:
            logger.info("%s: %d records came after the memory was kept and are done again", self.folder, there - count)
        self.part.cut(count)
        memory.load_state_dict(state)

    def _seen(self, count: int) -> str:
        """A digest of the first records of this process."""
        return hashlib.sha256(b"".join(self.part.sums[:count])).hexdigest()

    def _cut_files(self) -> None:
        for part in self.parts.values():
            part.cut_files()

    def _merge(self, may_grow: bool) -> None:
        """Make records.jsonl and logits.safetensors of the parts, unless they are made; then remove the parts.

        may_grow: as in `finish`.
        """
        if not self.complete:
            self._read_parts()
            rows = [(part, place) for part in self.parts.values() for place in range(len(part.records))]
            rows.sort(key=lambda row: row[0].records[row[1]]["index"])
            if self.arrays and rows:
                places = [(part.rows_file, place) for part, place in rows]
                save_rows_atomically(self.logits_file, self.arrays, places, self.described)
            write_atomically(self.sums_file, b"".join(part.sums[place] for part, place in rows))
            write_atomically(self.file, b"".join(part.lines[place] + b"\n" for part, place in rows))
        for file in self.folder.glob("records.part*"):
            file.unlink(missing_ok=True)
        if not may_grow:
            (self.folder / MEMORY_FILE).unlink(missing_ok=True)


def _read_memory(file: Path) -> tuple[dict[str, Tensor], int, str]:
    """A memory's state, the number of records that it has seen, and their digest."""
    try:
        with safe_open(file, "pt") as held:
            state, told = {name: held.get_tensor(name) for name in held.keys()}, held.metadata() or {}  # noqa: SIM118
        if told["tensors"] != digest_of_tensors(state):
            raise ValueError
        return state, int(told["count"]), told["seen"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file} is damaged; delete it to start the dataset afresh") from error


def shuffled(size: int, seed: int, limit: int | None) -> list[int]:
    """The order in which samples are visited: a permutation that the seed decides, cut to `limit`."""
    return np.random.default_rng(seed).permutation(size)[:limit].tolist()
