"""Datasets of Hugging Face, "hf:NAME_OR_FOLDER[:split]": from the hub or a folder, read in place.

Parquet files are read where they lie, a group of rows at a time. Other formats go through the `datasets` library's own
tables.
"""

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rlcf.errors import UserError
from rlcf.inputs.json_files import as_text, shown
from rlcf.inputs.places import expanded
from rlcf.inputs.sources import Rows, StoredImage
from rlcf.run.files import is_special

INSTALL = "pip install datasets"
CAPTION_NAMES = ("caption", "captions")
"""Of several columns of texts these hold the captions."""


class _Table(Rows, Protocol):
    """Rows of a dataset by column."""

    def values(self, column: str) -> list[Any]:
        """A column's values, in the order of the rows."""

    def with_pictures(self, column: str) -> "_Table":
        """The same rows, whose `picture` is that of a column."""


@dataclass(frozen=True)
class Columns:
    """What has to be told of a dataset that is not plain.

    config: the part of one that has several; image: the column of pictures; answer: that of labels or captions.
    """

    config: str | None = None
    image: str | None = None
    answer: str | None = None


@dataclass(frozen=True)
class StoredDataset:
    """One split of a dataset. name: as it was given; features: column -> its type, as the library describes it."""

    name: str
    features: Mapping[str, Any]
    table: _Table

    def images(self, column: str | None) -> list[StoredImage]:
        """The picture of each row. column: that holds them, None for the one column of pictures there is."""
        named = self._column(column, "image", _is_image, _is_plain_image)
        rows = self.table.with_pictures(named)
        return [StoredImage(rows, row, f"{row:06d}") for row in range(len(self.table))]

    def labels(self, column: str | None) -> tuple[list[int], list[str] | None]:
        """Each row's class, and the names of the classes: None where whole numbers alone tell the classes.

        column: that holds them, None for the one there is. Raises UserError for rows without a label.
        """
        named = self._column(column, "label", _is_class_label, _is_whole_number, _is_text)
        values = self._values(named)
        names: list[str] | None = getattr(self.features[named], "names", None)
        if names is None and _is_text(self.features[named]):
            texts = [as_text(value, f"the {named} of row {row} of {self.name}") for row, value in enumerate(values)]
            names = sorted(set(texts))
            values = [names.index(text) for text in texts]
        unnamed = [name for name in names or () if not isinstance(name, str) or not name.strip()]
        if unnamed:
            raise UserError(f"{self.name} calls a class {shown(unnamed[0])}; mend the ClassLabel of its {named}")
        wrong = next((row for row, value in enumerate(values) if not isinstance(value, int) or value < 0), None)
        if wrong is not None:
            raise UserError(
                f"row {wrong} of {self.name} has the {named} {values[wrong]}, so it is not labelled; use another split"
            )
        most = max(values, default=0)
        if names is not None and most >= len(names):
            raise UserError(f"{self.name} has the {named} {most} of {len(names)} classes; mend its ClassLabel")
        return values, None if names is None else list(names)

    def captions(self, column: str | None) -> list[list[str]]:
        """Each row's captions. column: that holds them, None for the one column of texts there is."""
        named = self._column(column, "caption", _holds_texts, _holds_sentences, _is_text)
        found = []
        for row, value in enumerate(self._values(named)):
            texts = value["raw"] if isinstance(value, dict) else value
            texts = [texts] if isinstance(texts, str | dict) or texts is None else texts
            where = f"a {named} of row {row} of {self.name}"
            found.append([as_text(text["raw"] if isinstance(text, dict) else text, where) for text in texts])
        return found

    def _values(self, column: str) -> list[Any]:
        """A column's values. Raises UserError where they cannot be read."""
        try:
            return self.table.values(column)
        except MemoryError:
            raise
        except Exception as error:  # damaged files raise many kinds
            said = " ".join(str(error).split())[:300] or type(error).__name__
            raise UserError(
                f"the column {column} of {self.name} cannot be read ({said}); get the dataset again"
            ) from error

    def _column(self, given: str | None, what: str, *kinds: Callable[[Any], bool]) -> str:
        """The column that holds what is wanted: the given one, or the only one of the first kind that there is."""
        flag = f"--{what}-column"
        if given is not None:
            if given not in self.features:
                raise UserError(f"{self.name} has no column '{given}' for {flag}; it has {', '.join(self.features)}")
            if not any(kind(self.features[given]) for kind in kinds):
                raise UserError(f"the column {given} of {self.name} holds no {what}s; give another {flag}")
            return given
        for kind in kinds:
            found = [name for name, feature in self.features.items() if kind(feature)]
            if len(found) > 1 and what == "caption":
                found = [name for name in found if name.lower() in CAPTION_NAMES] or found
            if len(found) > 1:
                raise UserError(f"{self.name} has several columns of {what}s; give {flag} one of {', '.join(found)}")
            if found:
                return found[0]
        raise UserError(f"{self.name} has no column of {what}s among {', '.join(self.features)}; give {flag}")


def open_stored(name: str, data: str, config: str | None = None) -> StoredDataset:
    """The dataset "hf:NAME_OR_FOLDER[:split]".

    A folder or a parquet file is looked for below `data` and from the working folder, then a dataset of the hub.
    config: name of the part of a dataset that has several. Raises UserError when the library is missing, and for a
    dataset that is not there or cannot be read; where there are several splits and none is named, with their names.
    """
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"dataset {name} is read by the library datasets; {INSTALL}") from error
    place, split = _where(name, data)
    try:
        datasets.utils.logging.set_verbosity_error()
        _require_files(name, place)
        if place.is_dir() and any((place / file).is_file() for file in ("state.json", "dataset_dict.json")):
            saved = datasets.load_from_disk(str(place))
            held = saved[_chosen(name, split, list(saved))] if isinstance(saved, dict) else saved
            return StoredDataset(name, dict(held.features), _LibraryTable(name, held))
        if place.is_file():
            return _parquet(name, [str(place)], None)
        builder = datasets.load_dataset_builder(str(place), config)
        files = {str(key): list(map(str, value)) for key, value in (builder.config.data_files or {}).items()}
        chosen = _chosen(name, split, list(files))
        if builder.name == "parquet":
            local = datasets.DownloadManager().download(files[chosen])
            return _parquet(name, local, builder.info.features)
        # Of the chosen split alone: the library would download and convert all others too.
        held = datasets.load_dataset(
            builder.name, data_files={chosen: files[chosen]}, features=builder.info.features, split=chosen
        )
        return StoredDataset(name, dict(held.features), _LibraryTable(name, held))
    except UserError:
        raise
    except Exception as error:  # the library and what it downloads with raise many kinds
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"dataset {name} cannot be read ({said}); give hf: a dataset of huggingface.co, or a folder with its files"
        ) from error


def _require_files(name: str, place: Path) -> None:
    """Raises UserError for a pipe, device or socket below a local folder: the library would wait for it."""
    found = [place, *(place.rglob("*") if place.is_dir() else ())]
    special = next((file for file in found if file.exists() and is_special(file)), None)
    if special is not None:
        raise UserError(f"{special} of dataset {name} is no regular file; take it away, or get the dataset again")


def _where(name: str, data: str) -> tuple[Path, str]:
    """The path, or the name on the hub, and the split, empty where none is named."""
    rest = name.partition(":")[2]
    place, _, split = rest.rpartition(":")
    if not rest.strip(":"):
        raise UserError("dataset hf needs its name or folder: hf:NAME_OR_FOLDER, or hf:NAME_OR_FOLDER:split")
    for path, part in ((rest, ""), (place, split)):
        for local in (Path(data or ".") / expanded(path), Path(expanded(path))):
            if path and local.exists():
                return local, part
    path, part = (place, split) if place else (rest, "")
    if path.startswith(("/", ".", "~")):
        raise UserError(f"dataset {name} was not found; there is no {expanded(path)}")
    return Path(path), part


def _chosen(name: str, split: str, known: Sequence[str]) -> str:
    if split in known:
        return split
    if not split and len(known) == 1:
        return known[0]
    wrong = f"has no split '{split}'" if split else "has several splits"
    raise UserError(f"dataset {name} {wrong}; write hf:NAME:SPLIT with one of {', '.join(known) or 'none'}")


def _parquet(name: str, files: Sequence[str], features: Any) -> StoredDataset:
    import datasets
    import pyarrow.parquet as parquet

    groups = [
        (file, group, described.row_group(group).num_rows)
        for file in files
        for described in [parquet.read_metadata(file)]
        for group in range(described.num_row_groups)
    ]
    described = features or datasets.Features.from_arrow_schema(parquet.read_schema(files[0]))
    starts = list(itertools.accumulate((count for *_, count in groups), initial=0))
    if starts[-1] > sum(Path(file).stat().st_size for file in files):  # a picture is longer than a byte
        raise UserError(f"{name} tells of {starts[-1]:,} rows, more than its files have bytes; get the dataset again")
    return StoredDataset(name, dict(described), _ParquetTable(name, [(f, g) for f, g, _ in groups], starts))


@dataclass
class _ParquetTable:
    """groups: (file, number of the group of rows in it); starts: the first row of each, and the number of all rows."""

    name: str
    groups: list[tuple[str, int]]
    starts: list[int]
    column: str = ""
    _at_hand: tuple[int, Any] = field(default=(-1, None), repr=False)

    def __len__(self) -> int:
        return self.starts[-1]

    def with_pictures(self, column: str) -> "_ParquetTable":
        return _ParquetTable(self.name, self.groups, self.starts, column)

    def values(self, column: str) -> list[Any]:
        return [value for number in range(len(self.groups)) for value in self._read(number, column).to_pylist()]

    def picture(self, row: int) -> bytes:
        number = bisect.bisect_right(self.starts, row) - 1
        if self._at_hand[0] != number:
            self._at_hand = number, self._read(number, self.column)
        folder = Path(self.groups[number][0]).parent
        return _encoded(self._at_hand[1][row - self.starts[number]].as_py(), folder)

    def _read(self, number: int, column: str) -> Any:
        import pyarrow.parquet as parquet

        file, group = self.groups[number]
        with parquet.ParquetFile(file) as opened:
            return opened.read_row_group(group, columns=[column]).column(column)


@dataclass
class _LibraryTable:
    """rows: a `datasets.Dataset`."""

    name: str
    rows: Any
    column: str = ""

    def __len__(self) -> int:
        return len(self.rows)

    def with_pictures(self, column: str) -> "_LibraryTable":
        import datasets

        rows = self.rows.select_columns([column])
        if isinstance(rows.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        return _LibraryTable(self.name, rows, column)

    def values(self, column: str) -> list[Any]:
        return list(self.rows.select_columns([column])[column])

    def picture(self, row: int) -> bytes:
        return _encoded(self.rows[row][self.column], Path())


def _encoded(value: Any, folder: Path) -> bytes:
    """The bytes of a picture. value: bytes, or their struct with a path beside, which may stand for them."""
    held, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(held, bytes):
        return held
    if isinstance(path, str) and (folder / path).is_file():
        return (folder / path).read_bytes()
    raise ValueError("the row holds no picture")


# ---- kinds of columns, by the library's types ----


def _is_image(feature: Any) -> bool:
    return type(feature).__name__ == "Image"


def _is_plain_image(feature: Any) -> bool:
    """Of a file that does not tell the library's types: encoded pictures, with or without their paths."""
    inner = feature.get("bytes") if isinstance(feature, dict) else feature
    return str(getattr(inner, "dtype", "")) in ("binary", "large_binary")


def _is_class_label(feature: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _is_whole_number(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).lstrip("u").startswith("int") and not _is_class_label(feature)


def _is_text(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")) in ("string", "large_string")


def _holds_texts(feature: Any) -> bool:
    """A list of texts a row."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    return _is_text(inner)


def _holds_sentences(feature: Any) -> bool:
    """Karpathy's sentences: one, or a list of them, whose text is "raw"."""
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    return isinstance(inner, dict) and "raw" in inner
