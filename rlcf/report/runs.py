"""Reads run folders: settings, results, and the records of each dataset, also of a run that is not finished."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from rlcf.errors import UserError
from rlcf.run.files import file_name
from rlcf.run.finished import Finished
from rlcf.run.folder import refuse_special
from rlcf.run.identity import read_identity
from rlcf.run.parts import Part
from rlcf.run.record_lines import Record, read_unchecked, repeated
from rlcf.run.run import IMAGES_FILE

TASKS = {"classification": "classnames", "retrieval": "direction", "captioning": "evaluate_clip"}
"""A task -> a setting that it alone has."""
LOGITS = ("zero_shot", "adapted")
"""The matrices that a run with --save-logits keeps, in the order of their rows in a checksum."""


@dataclass(frozen=True)
class DatasetRecords:
    """What a run has recorded of a dataset, or of one direction of it.

    name: as results.json has it; finished: False while samples may be missing; images: the folder that the samples'
    ids start from, None where it is not known.
    """

    name: str
    folder: Path
    records: list[Record]
    finished: bool
    images: Path | None


@dataclass(frozen=True)
class RunFolder:
    """A run. name: of its folder, with as many folders above it as tell it from the others; results: results.json's
    content, empty where there is none yet; datasets: those with records, in the order of the settings."""

    folder: Path
    name: str
    task: str
    config: dict[str, Any]
    results: dict[str, Any]
    datasets: list[DatasetRecords]

    @property
    def finished(self) -> bool:
        return all(dataset.finished for dataset in self.datasets)


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Reads run folders of one task.

    Raises UserError naming the folder that is missing, is no run's, holds no records or damaged ones; and for a folder
    given twice and for runs of different tasks.
    """
    names = short_names(folders)
    runs = [_read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    other = next((run for run in runs if run.task != runs[0].task), None)
    if other is not None:
        raise UserError(
            f"{runs[0].folder} is a run of {runs[0].task}, {other.folder} one of {other.task}; a report compares runs "
            "of one task, so give each task a report of its own"
        )
    return runs


def short_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the folders' paths, as few as tell them apart. Raises UserError for a folder given twice."""
    whole = [folder.resolve() for folder in folders]
    for number, path in enumerate(whole):
        if path in whole[:number]:
            raise UserError(f"{folders[number]} was given twice; give each run once")
    count = 1
    while len({path.parts[-count:] for path in whole}) < len(whole):
        count += 1
    return ["/".join(path.parts[-count:]) for path in whole]


def _read_run(folder: Path, name: str) -> RunFolder:
    if not folder.is_dir():
        raise UserError(f"no run folder {folder}; give the folder that a run wrote, its --output")
    refuse_special(folder)
    config = _read_config(folder)
    task = next((task for task, key in TASKS.items() if key in config and "method" in config), None)
    if task is None:
        raise UserError(f"{folder} is no run of classification, retrieval or captioning; a report is for those")
    results = _read_json(folder / "results.json")
    found = {place.name: place for place in sorted(folder.iterdir()) if list(place.glob("records*.jsonl"))}
    asked = config.get("datasets")
    asked = [dataset for dataset in asked if isinstance(dataset, str) and dataset] if isinstance(asked, list) else []
    known = [f"{dataset}{end}" for dataset in asked for end in ("", "-i2t", "-t2i")]
    called = {file_name(dataset): dataset for dataset in known}
    order = [place for place in called if place in found] + [place for place in found if place not in called]
    datasets = [_read_dataset(found[place], called.get(place, place)) for place in order]
    datasets = [dataset for dataset in datasets if dataset.records]
    if not datasets:
        raise UserError(f"{folder} has no records yet; start its run again: it goes on where it was")
    return RunFolder(folder, name, task, config, results, datasets)


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"{folder} is no run folder: it has no config.yaml; give the folder that a run wrote")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except Exception as error:  # YAML errors of several kinds, and a file that is no text
        raise UserError(f"{file} is damaged; the run's command writes it anew") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is damaged; the run's command writes it anew")
    return {str(key): value for key, value in config.items()}


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none, for results.json follows from the records."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}


def _read_dataset(folder: Path, name: str) -> DatasetRecords:
    """Raises UserError for records that are damaged."""
    finished = (folder / "records.jsonl").is_file()
    key = read_identity(folder).key
    records = _read_finished(folder, key) if finished else _read_parts(folder, key)
    told = _read_json(folder / IMAGES_FILE).get("folder")
    return DatasetRecords(name, folder, records, finished, Path(told) if isinstance(told, str) and told else None)


def _read_finished(folder: Path, key: bytes) -> list[Record]:
    rows = folder / "logits.safetensors"
    widths: Mapping[str, int] = {}
    described: Mapping[str, str] = {}
    if rows.exists():
        try:
            with safe_open(rows, "np") as held:
                widths = {name: held.get_slice(name).get_shape()[1] for name in LOGITS}
                described = held.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise UserError(f"{rows} is damaged; delete its folder to start it afresh") from error
    found = (line.record for line in Finished(folder, key, widths, described).lines())
    return list(_gather(folder / "records.jsonl", found, {}).values())


def _read_parts(folder: Path, key: bytes) -> list[Record]:
    """The records so far, by index. Those beside logits are not held to their checksums: how wide a row is is not yet
    written anywhere."""
    records: dict[int, Record] = {}
    for file in sorted(folder.glob("records.part*.jsonl")):
        if file.with_suffix(".f32").exists():
            found = read_unchecked(file)
        else:
            found = (line.record for line in Part(file, 0, key).lines() if line.row is not None)
        _gather(file, found, records)
    return [records[index] for index in sorted(records)]


def _gather(file: Path, found: Iterable[Record], records: dict[int, Record]) -> dict[int, Record]:
    """Put the records of a file among those of others, by their index. Raises UserError for one that is there."""
    for number, record in enumerate(found, start=1):
        if record["index"] in records:
            raise repeated(file, number)
        records[record["index"]] = record
    return records
