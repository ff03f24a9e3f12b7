"""Run folders: one config, records that survive an interruption, results written in one piece.

output/<run>/config.yaml, log.txt, results.json and per dataset <dataset>/records.jsonl. While a dataset runs, each
process appends to its own <dataset>/records.part<rank>.jsonl, and starting again skips what any part holds; at the end
the parts become records.jsonl.
"""

import dataclasses
import json
import logging
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlcf import __version__
from rlcf.errors import UserError
from rlcf.run.config import Config, Settings, command_line, read_preset, to_yaml
from rlcf.run.files import save_atomically, save_rows_atomically, write_atomically, writing
from rlcf.run.shard import Shard

Record = dict[str, Any]
MEMORY_FILE = "momentum.safetensors"

logger = logging.getLogger("rlcf")


def open_run_folder(config: Settings, begun: str) -> Path:
    """Make the folder `config.output`, keep the config in it, and open its log.

    begun: pattern of the files that show that a run was begun there, with a config that must not have changed.
    Raises UserError when the folder cannot be written, or holds a run with another config.
    """
    folder = Path(config.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _keep_config(folder / "config.yaml", config, any(folder.glob(begun)))
        _open_log(folder / "log.txt")
    except OSError as error:
        raise UserError(
            f"cannot write to the run folder {folder} ({error.strerror}); choose another --output"
        ) from error
    return folder


def _keep_config(file: Path, config: Settings, begun: bool) -> None:
    if file.exists() and begun:
        before, now = read_preset(type(config), file), vars(config)
        fixed = [spec.name for spec in dataclasses.fields(config) if not spec.metadata["may_change"]]
        changed = sorted(name for name in fixed if before.get(name) != now[name])
        if changed:
            changes = ", ".join(f"{key} ({before.get(key)} -> {now[key]})" for key in changed)
            raise UserError(f"{file.parent} holds a run with another config: {changes}; choose another --output")
    write_atomically(file, to_yaml(config))


class _LogFile(logging.FileHandler):
    """A log whose failed writes are told as those of any other file; logging itself prints a traceback a line."""

    def handleError(self, record: logging.LogRecord) -> None:
        with writing(Path(self.baseFilename)):
            raise


def _open_log(file: Path) -> None:
    handler = _LogFile(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # libraries print what reaches the root logger
    logger.info("command: %s", command_line())


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
    """One run folder.

    Raises UserError when it cannot be written, or holds a run with another config.
    """

    def __init__(self, config: Config, shard: Shard) -> None:
        self.folder, self.config, self.shard = Path(config.output), config, shard
        if shard.first:
            open_run_folder(config, begun="*/records*")
        shard.wait()

    def folder_of(self, dataset: str) -> Path:
        """The dataset's folder in the run's."""
        return self.folder / re.sub(r"[^\w.-]+", "-", dataset)

    def records(
        self,
        dataset: str,
        memory: Memory | None = None,
        arrays: Mapping[str, int] | None = None,
        described: Mapping[str, str] | None = None,
    ) -> "Records":
        """The dataset's records; see `Records`."""
        return Records(self.folder_of(dataset), self.shard, memory, arrays, described)

    def report(self, dataset: str, metrics: dict[str, Any]) -> None:
        """Put one dataset's metrics into results.json and the log."""
        file = self.folder / "results.json"
        results = json.loads(file.read_text()) if file.exists() else {"datasets": {}}
        results["datasets"][dataset] = metrics
        results |= {"command": command_line(), "seed": self.config.seed, "versions": versions(), "commit": commit()}
        write_atomically(file, json.dumps(results, indent=2) + "\n")
        logger.info("%s: %s", dataset, json.dumps(metrics))


class Records:
    """One dataset's records, appended sample by sample; a method's memory is kept beside them.

    A record holds its sample's "index" and "id", its "status", "ok" when its episode gave an answer, and "gated", true
    where it needed no episode.
    `with records:` around the loop over samples keeps the memory also when the loop is left early.
    arrays: name -> width of float rows that are kept beside each record; described: metadata of their file.
    done: indices of the samples that need no more work; complete: True when every process had finished.
    """

    def __init__(
        self,
        folder: Path,
        shard: Shard,
        memory: Memory | None = None,
        arrays: Mapping[str, int] | None = None,
        described: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.shard, self.memory = folder, shard, memory
        self.arrays, self.described = dict(arrays or {}), dict(described or {})
        self.file = folder / "records.jsonl"
        self.part = folder / f"records.part{shard.rank}.jsonl"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.complete = self.file.exists()
            if shard.first and not self.complete:
                for part in self._parts():
                    self._drop_torn_end(part)
        shard.wait()
        self.written = self._read_all()
        self.done = {record["index"] for record in self.written}
        if memory is not None:
            self._load_memory(memory)
        shard.wait()

    def todo(self, order: Sequence[int], ids: Sequence[str]) -> list[int]:
        """This process's share of the samples that have no record yet, in their order.

        ids: of all samples, by index. Raises UserError when the records tell of other samples.
        """
        known = all(r["index"] < len(ids) and r["id"] == ids[r["index"]] for r in self.written)
        left = [index for index in order if index not in self.done]
        if not known or (self.complete and left):
            raise UserError(f"{self.folder} was begun with other samples than there are now; choose another --output")
        return left[self.shard.rank :: self.shard.count]

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        if self.memory is not None:
            self._save_memory(self.memory)

    def add(self, record: Record, arrays: Mapping[str, Tensor] | None = None) -> None:
        """Append one record; its arrays first, so that a record never lacks them. Raises UserError as `writing`."""
        if self.arrays:
            given = {name: row.cpu().numpy() for name, row in (arrays or {}).items()}
            flat = [given.get(name, np.full(width, np.nan)) for name, width in self.arrays.items()]
            with writing(self._array_file(self.part)), self._array_file(self.part).open("ab") as stream:
                stream.write(np.concatenate(flat).astype("<f4").tobytes())
        with writing(self.part), self.part.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        self.written.append(record)
        if self.memory is not None and len(self.written) % self.memory.every == 0:
            self._save_memory(self.memory)

    def _save_memory(self, memory: Memory) -> None:
        """Write the memory to its file, unless it is ahead of the records after a stop in the middle of a sample."""
        if memory.updates == sum(record["status"] == "ok" and not record.get("gated") for record in self.written):
            count = {"count": torch.tensor(len(self.written))}
            save_atomically(self.folder / MEMORY_FILE, memory.state_dict() | count)

    def _load_memory(self, memory: Memory) -> None:
        """Read the memory from its file, and drop the records that came after it: their samples are done again."""
        file = self.folder / MEMORY_FILE
        state = load_file(file) if file.exists() else {}
        count = int(state.pop("count", torch.tensor(0)))
        if len(self.written) > count and not self.complete:
            write_atomically(self.part, "".join(self.part.read_text().splitlines(keepends=True)[:count]))
            self._drop_torn_end(self.part)
            self.written = self._read_all()
            self.done = {record["index"] for record in self.written}
        memory.load_state_dict(state)

    def finish(self) -> list[Record]:
        """Wait for every process; the first one merges the parts. Returns all records, by index."""
        self.shard.wait()
        if self.shard.first:
            if not self.complete:
                self._merge()
            self._remove_parts()
        self.shard.wait()
        self.complete = True
        return _read_lines(self.file)

    def saved_arrays(self) -> dict[str, Tensor]:
        """After `finish`: name -> (N, width), rows as in records.jsonl."""
        return load_file(self.folder / "logits.safetensors")

    def _merge(self) -> None:
        rows: list[tuple[Record, Path, int]] = []
        for part in self._parts():
            rows += [(record, self._array_file(part), place) for place, record in enumerate(_read_lines(part))]
        rows.sort(key=lambda row: row[0]["index"])
        if self.arrays and rows:
            places = [(file, place) for _, file, place in rows]
            save_rows_atomically(self.folder / "logits.safetensors", self.arrays, places, self.described)
        write_atomically(self.file, "".join(json.dumps(record) + "\n" for record, _, _ in rows))

    def _remove_parts(self) -> None:
        for part in self._parts():
            part.unlink(missing_ok=True)
            self._array_file(part).unlink(missing_ok=True)
        (self.folder / MEMORY_FILE).unlink(missing_ok=True)

    def _read_all(self) -> list[Record]:
        return _read_lines(self.file) if self.complete else [r for part in self._parts() for r in _read_lines(part)]

    def _parts(self) -> list[Path]:
        """The processes' record files, also one whose process was killed when it had written arrays alone."""
        return sorted({file.with_suffix(".jsonl") for file in self.folder.glob("records.part*")})

    def _array_file(self, part: Path) -> Path:
        return part.with_suffix(".f32")

    def _drop_torn_end(self, part: Path) -> None:
        """Cut half a line, and arrays without their record, that a killed process left at the end of its files."""
        part.touch()
        text = part.read_text(errors="replace")
        lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        if self.arrays:
            row = 4 * sum(self.arrays.values())
            with self._array_file(part).open("ab") as stream:
                lines = lines[: stream.tell() // row]
                stream.truncate(len(lines) * row)
        write_atomically(part, "".join(lines))


def _read_lines(file: Path) -> list[Record]:
    records = []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{file} is damaged in line {number}; delete its folder to start it afresh") from error
    return records


def commit() -> str | None:
    """The git commit of a checkout that runs as it is, with "+" behind it where files were changed; else None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]
    status = [*git, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        said = subprocess.run(status, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    head = said[0].removeprefix("# branch.oid ")
    return head + ("" if said[-1].startswith("#") else "+")  # lines about the branch, then one a changed file


def shuffled(size: int, seed: int, limit: int | None) -> list[int]:
    """The order in which samples are visited: a permutation that the seed decides, cut to `limit`."""
    return np.random.default_rng(seed).permutation(size)[:limit].tolist()


def versions(packages: Iterable[str] = ("torch", "torchvision", "open_clip_torch", "transformers")) -> dict[str, str]:
    """Versions of Python, of this project and of the packages."""
    found = {"python": platform.python_version(), "rlcf": __version__}
    return found | {package: metadata.version(package) for package in packages}
