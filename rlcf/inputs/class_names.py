"""The one reader of files of class names, and whether their order is the folders'."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from rlcf.errors import UserError
from rlcf.inputs.json_files import as_text, read_json
from rlcf.inputs.text_files import read_lines

MOST_TOLD = 3
"""Repeated names that are told."""


def read_classnames(file: Path, folders: Sequence[str]) -> list[str]:
    """The name of each class folder, from a file.

    file: a JSON object {folder: name}, or {number: [folder, name]} (as Keras' of ImageNet); or text whose lines are
    "folder<TAB>name", or the folder's name, a space and the name (as CoOp's); or a name a line, or a JSON array of
    names, in the sorted order of the folders. folders: the class folders' names, sorted. Further folders in the file
    are ignored.

    Raises UserError for a file that is missing or no text, that lacks a folder, or that has another number of names
    than there are folders; and for names in an order that may not be the folders'.
    """
    entries = _entries(file)
    if isinstance(entries, dict):
        found = _of_folders(entries, folders)
        missing = next((folder for folder, name in zip(folders, found, strict=True) if name is None), None)
        if missing is not None:
            raise UserError(f"{file} has no name for the class folder '{missing}'; add it")
        return [name for name in found if name is not None]
    by_folder = _with_folders(entries, folders)
    if by_folder is not None:
        return by_folder
    if len(entries) != len(folders):
        raise UserError(
            f"{file} holds {len(entries)} class names but there are {len(folders)} class folders; write one name a "
            "line, in the sorted order of the folders, or 'folder<TAB>name'"
        )
    _check_order(file, entries, folders)
    return entries


def read_names(file: Path) -> list[str]:
    """The names in a file in its order: a line each, or a JSON array. Raises UserError as `read_classnames`."""
    entries = _entries(file)
    return list(entries.values()) if isinstance(entries, dict) else entries


def repeated_names(names: Sequence[str], called: Sequence[str]) -> str:
    """A sentence about classes of the same name, empty where there are none. called: the classes' folders."""
    of = defaultdict(list)
    for name, folder in zip(names, called, strict=True):
        of[name].append(folder)
    same = [f"'{name}' ({', '.join(folders)})" for name, folders in of.items() if len(folders) > 1]
    more = f" and {len(same) - MOST_TOLD} more" if len(same) > MOST_TOLD else ""
    told = ", ".join(same[:MOST_TOLD])
    return f"classes of the same name cannot be told apart: {told}{more}" if same else ""


def _entries(file: Path) -> list[str] | dict[str, str]:
    """The names in a file, or {folder: name} where it tells the folders."""
    lines = read_lines(file)
    if file.suffix.lower() == ".json" or (lines and lines[0][0] in "[{"):
        held = read_json(file)
        if isinstance(held, dict):
            if held and all(isinstance(pair, list) and len(pair) == 2 for pair in held.values()):
                held = {str(folder): _spaced(name) for folder, name in held.values()}
            return {folder: as_text(name, f"the name of '{folder}' in {file}").strip() for folder, name in held.items()}
        if isinstance(held, list):
            return [as_text(name, f"name {i} in {file}").strip() for i, name in enumerate(held, start=1)]
        raise UserError(f"{file} holds no class names; it must hold {{folder: name}} or [name, ...]")
    if not any("\t" in line for line in lines):
        return lines
    entries: dict[str, str] = {}
    for line in lines:
        folder, _, name = (part.strip() for part in line.partition("\t"))
        if not folder or not name or folder in entries:
            wrong = "names a folder twice" if folder in entries else "is not 'folder<TAB>name' as others are"
            raise UserError(f"{file}: the line '{line}' {wrong}; mend it")
        entries[folder] = name
    return entries


def _with_folders(lines: Sequence[str], folders: Sequence[str]) -> list[str] | None:
    """The folders' names in lines that begin with a folder each, such as "n01440764 tench"; None for other lines."""
    pairs = [line.split(maxsplit=1) for line in lines]
    entries = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    found = [name for name in _of_folders(entries, folders) if name is not None]
    return found if len(entries) == len(lines) and len(found) == len(folders) else None


def _of_folders(entries: Mapping[str, str], folders: Sequence[str]) -> list[str | None]:
    """The name of each folder. An accented letter may be one character in the file and two in the folder's name."""
    composed = {normalize("NFC", folder): name for folder, name in entries.items()}
    return [entries.get(folder, composed.get(normalize("NFC", folder))) for folder in folders]


def _spaced(name: object) -> object:
    return name.replace("_", " ") if isinstance(name, str) else name


def _check_order(file: Path, names: Sequence[str], folders: Sequence[str]) -> None:
    """Raises UserError where the folders have another order for people than for programs: 2 before 10, b before C.

    The same where the names are the folders' own in another order.
    """
    natural = sorted(folders, key=natural_key)
    first = next((pair for pair in zip(folders, natural, strict=True) if pair[0] != pair[1]), None)
    if first is None:
        plain = [[_plain(name) for name in group] for group in (names, folders)]
        if plain[0] == plain[1] or sorted(plain[0]) != sorted(plain[1]):
            return
        first = next((pair for pair in zip(folders, names, strict=True) if _plain(pair[0]) != _plain(pair[1])), None)
    assert first is not None
    raise UserError(
        f"{file} lists names without their folders, and the order of the folders is not plain: '{first[0]}' or "
        f"'{first[1]}' may be meant; write 'folder<TAB>name' in each line, or JSON {{folder: name}}"
    )


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A key that sorts as people do: numbers by their size, letters whatever their case.

    >>> sorted(["10", "2", "b", "C"], key=natural_key)
    ['2', '10', 'b', 'C']
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", name.casefold())
    return [(0, int(part), "") if part.isdigit() and part.isascii() else (1, 0, part) for part in parts], name


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
