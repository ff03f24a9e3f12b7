"""The one scanner of folders of pictures, and what it leaves out."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from rlcf.errors import UserError

NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
"""Formats that Pillow knows by name and that are not read: it cannot decode them by itself, or they are wrappers."""
HIDDEN = {"thumbs.db", "desktop.ini", "__macosx"}
"""Names, beside those that begin with a dot, of what systems and archives put beside pictures."""
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing", "dev")
"""What people call the parts of a dataset, in small letters."""
MAX_ENDINGS = 5
"""Endings of other files that are named."""


@cache
def image_suffixes() -> frozenset[str]:
    """The endings, in lower case and with the dot, of the formats that Pillow reads here."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, kind in known if kind in Image.OPEN and kind not in NO_PICTURES)


def is_hidden(name: str) -> bool:
    """True for the names of files and folders that people do not see."""
    return name.startswith(".") or name.lower() in HIDDEN


@dataclass
class LeftOut:
    """Counts what a scan leaves out."""

    hidden: int = 0
    broken: int = 0
    again: int = 0
    beside: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        """One line, empty where nothing is left out."""
        endings = ", ".join(sorted(self.others, key=lambda ending: (-self.others[ending], ending))[:MAX_ENDINGS])
        more = ", ..." if len(self.others) > MAX_ENDINGS else ""
        heic = "; HEIC is read once it is converted to JPEG" if {".heic", ".heif"} & self.others.keys() else ""
        told = [
            (self.hidden, "hidden", ""),
            (self.others.total(), "with another ending", f" ({endings}{more}{heic})"),
            (self.beside, "beside the class folders", ""),
            (self.broken, "a broken link or no regular file", ""),
            (self.again, "a link to a folder that is in already", ""),
        ]
        return ", ".join(f"{count} {what}{which}" for count, what, which in told if count)


def scan(root: Path, left_out: LeftOut) -> list[Path]:
    """The pictures below a folder by their endings, sorted.

    Hidden files and folders are left out. Links are followed, but each folder is entered once, so that loops end.
    left_out: is added to. Raises UserError for a folder that cannot be read.
    """
    return sorted(_pictures(root, {_identity(root)}, _resolved(root), left_out))


def _pictures(folder: Path, entered: set[tuple[int, int]], root: str, left_out: LeftOut) -> Iterator[Path]:
    for entry in entries(folder):
        path = folder / entry.name
        if is_hidden(entry.name):
            left_out.hidden += 1
        elif _is_folder(entry):
            # A link to a folder below the root is left to the folder itself.
            inside = entry.is_symlink() and f"{_resolved(path)}{os.sep}".startswith(f"{root}{os.sep}")
            if inside or _identity(path) in entered:
                left_out.again += 1
            else:
                entered.add(_identity(path))
                yield from _pictures(path, entered, root, left_out)
        elif not path.is_file():
            left_out.broken += 1
        elif path.suffix.lower() in image_suffixes():
            yield path
        else:
            left_out.others[path.suffix.lower() or "no ending"] += 1


def class_folders(root: Path, left_out: LeftOut) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones. Raises UserError as `scan`."""
    names = []
    for entry in entries(root):
        if is_hidden(entry.name):
            left_out.hidden += 1
        elif _is_folder(entry):
            names.append(entry.name)
        elif not (root / entry.name).is_file():
            left_out.broken += 1
        else:
            left_out.beside += 1
    return names


def split_among(root: Path, folders: Sequence[str]) -> str:
    """One of the folders in `root` where all are called train, test and so on and hold folders; else "".

    It is the first that is not for training, if there is one.
    """
    if not folders or not all(
        folder.lower() in SPLITS and class_folders(root / folder, LeftOut()) for folder in folders
    ):
        return ""
    return next((folder for folder in folders if not folder.lower().startswith("train")), folders[0])


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted by name. Raises UserError for a folder that cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror}); make it readable") from error


def readable_name(name: str) -> str:
    """The text of a file's or folder's name, also in another locale, and of a name that is not UTF-8.

    >>> readable_name("caf\\udce9")
    'café'
    """
    held = os.fsencode(name)
    try:
        return held.decode("utf-8")
    except UnicodeDecodeError:
        return held.decode("latin-1")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _resolved(folder: Path) -> str:
    return os.path.realpath(folder)
