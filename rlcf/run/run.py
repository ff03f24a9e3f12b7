"""A run: its folder, the folders of its datasets, and results.json.

output/<run>/config.yaml, log.txt, results.json and per dataset <dataset>/identity.json, images.json and records.jsonl.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.run.carried import Memory
from rlcf.run.config import command_line
from rlcf.run.files import file_name, write_atomically
from rlcf.run.folder import commit, logger, open_run_folder, tell, versions
from rlcf.run.identity import fixed_settings, keep_identity, read_identity
from rlcf.run.kept import Fits, Numbers
from rlcf.run.records import Records
from rlcf.run.settings import Config
from rlcf.run.shard import Shard

IMAGES_FILE = "images.json"


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
        ids: Sequence[str],
        memory: Memory | None = None,
        arrays: Mapping[str, int] | None = None,
        described: Mapping[str, str] | None = None,
        contents: Mapping[str, str] | None = None,
        images: Path | None = None,
        numbers: Numbers = lambda record: None,
        fits: Fits = lambda record, row: True,
    ) -> Records:
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
            key = read_identity(folder).key
            return Records(folder, self.shard, key, ids, memory, arrays, described, numbers, fits)
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
