"""Where a picture is read from: a file, or a row of a stored dataset."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Rows(Protocol):
    """A dataset whose rows hold encoded pictures."""

    name: str

    def __len__(self) -> int: ...

    def picture(self, row: int) -> bytes:
        """The encoded picture of a row. Raises ValueError where the row has none."""


@dataclass(frozen=True)
class StoredImage:
    """A picture in a row of a stored dataset. name: the id of its sample."""

    rows: Rows = field(repr=False, compare=False)
    row: int
    name: str

    def __str__(self) -> str:
        return f"row {self.row} of {self.rows.name}"


Source = Path | StoredImage
"""Where a picture is read from."""


def name_of(source: Source, root: Path) -> str:
    """The id of a picture's sample: its path relative to `root` with forward slashes, or its name in its dataset."""
    return source.name if isinstance(source, StoredImage) else source.relative_to(root).as_posix()


def folder_of(source: Source, name: str) -> Path | None:
    """The folder that a sample's id starts from; None where it is no path below a folder. source: its picture."""
    if isinstance(source, StoredImage):
        return None
    return next((folder for folder in source.parents if folder / name == source), None)
