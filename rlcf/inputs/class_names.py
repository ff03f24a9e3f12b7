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
    "folder<TAB>name", or the folder's name, a space, comma or colon, and the name (as CoOp's, CSV and YAML); or a name
    a line, or a JSON array of names, in the sorted order of the folders. There each name may have its number, from 0 or
    1, before it, as in {number: name}. Quotes around a name are taken off. folders: the class folders' names, sorted.
    Further folders in the file are ignored.

    Raises UserError for a file that is missing or no text, that lacks a folder, or that has another number of names
    than there are folders; and for names in an order that may not be the folders'.
    """
    entries = _entries(file)
    if isinstance(entries, dict):
        found = _of_folders(entries, folders)
        numbered = _by_number(list(entries.items())) if len(entries) == len(folders) else None
        if None not in found or numbered is None:
            missing = next((folder for folder, name in zip(folders, found, strict=True) if name is None), None)
            if missing is not None:
                raise UserError(f"{file} has no name for the class folder '{missing}'; add it")
            return [name for name in found if name is not None]
        entries = numbered
    else:
        by_folder = _with_folders(entries, folders)
        if by_folder is not None:
            return by_folder
        if not _same_words(entries, folders):  # "1 cent" and "2 cents" may be the folders themselves
            entries = _without_numbers(entries)
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
    if isinstance(entries, dict):
        return _by_number(list(entries.items())) or list(entries.values())
    return _without_numbers(entries)


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
    python = bool(lines) and re.match(r"\{\s*\d+\s*:", lines[0]) is not None  # a dictionary printed, {0: 'tench', ...
    if not python and (file.suffix.lower() == ".json" or (lines and lines[0][0] in "[{")):
        held = read_json(file)
        if isinstance(held, dict):
            if held and all(isinstance(pair, list) and len(pair) == 2 for pair in held.values()):
                held = {str(folder): _spaced(name) for folder, name in held.values()}
            return {folder: as_text(name, f"the name of '{folder}' in {file}").strip() for folder, name in held.items()}
        if isinstance(held, list):
            return [as_text(name, f"name {i} in {file}").strip() for i, name in enumerate(held, start=1)]
        raise UserError(f"{file} holds no class names; it must hold {{folder: name}} or [name, ...]")
    if python:
        lines = [line for line in (line.strip("{} ") for line in lines) if line]
    if not any("\t" in line for line in lines):
        listed = all(line.startswith("- ") for line in lines)
        return [_plainly(line[2:] if listed else line) for line in lines]
    entries: dict[str, str] = {}
    for line in lines:
        folder, _, name = (part.strip() for part in line.partition("\t"))
        folder = folder.rstrip("/")
        if not folder or not name or "\t" in name or folder in entries:
            wrong = "names a folder twice" if folder in entries else "is not 'folder<TAB>name' as others are"
            raise UserError(f"{file}: the line '{line}' {wrong}; mend it")
        entries[folder] = _plainly(name)
    return entries


def _plainly(name: str) -> str:
    """A name without quotes around it and a comma behind them, its words apart by one space.

    >>> [_plainly(name) for name in ('"a cat",', "'owl'", '"Weird Al" Yankovic', "rock 'n' roll")]
    ['a cat', 'owl', '"Weird Al" Yankovic', "rock 'n' roll"]
    """
    quoted = re.fullmatch(r"""(["'])(.*\S.*)\1,?""", name.strip())
    inside = quoted[2].replace(quoted[1] * 2, "") if quoted else ""
    if quoted and quoted[1] not in inside.replace("\\" + quoted[1], ""):
        name = quoted[2].replace(quoted[1] * 2, quoted[1]).replace("\\" + quoted[1], quoted[1])
    return " ".join(name.split())


def _with_folders(lines: Sequence[str], folders: Sequence[str]) -> list[str] | None:
    """The folders' names in lines that begin with a folder each, such as "n01440764 tench"; None for other lines.

    A comma or a colon may stand between them. Lines that begin with no folder are left out.
    """
    known = "|".join(re.escape(normalize("NFC", folder)) for folder in sorted(folders, key=len, reverse=True))
    split = re.compile(rf"""(["']?)({known})/?\1(?:\s*[,;:=]\s*|\s+)(\S.*)""")
    found = [match for match in (split.fullmatch(normalize("NFC", line)) for line in lines) if match]
    entries = {match[2]: _plainly(match[3]) for match in found}
    names = [name for name in _of_folders(entries, folders) if name is not None]
    return names if len(entries) == len(found) and len(names) == len(folders) else None


def _without_numbers(lines: list[str]) -> list[str]:
    """Names without the number that stands before each, 0, 1, 2 ... or 1, 2, 3 ...; other names as they are."""
    pairs = [re.fullmatch(r"(\d+)(?:\s*[:.,;)=]\s*|\s+)(\S.*)", line) for line in lines]
    names = _by_number([(pair[1], _plainly(pair[2].rstrip(","))) for pair in pairs if pair])
    return names if names is not None and len(names) == len(lines) and len(set(names)) > 1 else lines


def _by_number(pairs: Sequence[tuple[str, str]]) -> list[str] | None:
    """The names of (number, name) in the order of the numbers, which must be all from 0, or from 1; else None."""
    if not all(number.isascii() and number.isdigit() for number, _ in pairs):
        return None
    ordered = sorted((int(number), name) for number, name in pairs)
    numbers = [number for number, _ in ordered]
    counted = bool(ordered) and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return [name for _, name in ordered] if counted else None


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
        if not _same_words(names, folders) or list(map(_plain, names)) == list(map(_plain, folders)):
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


def _same_words(names: Sequence[str], folders: Sequence[str]) -> bool:
    """True for names that are the folders' own, in any order."""
    return sorted(map(_plain, names)) == sorted(map(_plain, folders))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.casefold()).strip()
