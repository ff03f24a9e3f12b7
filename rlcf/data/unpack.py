"""Unpacks tar and zip archives without leaving the target folder."""

import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlcf.errors import UserError
from rlcf.progress import progress_bar

Member = tuple[str, bool, Any]
"""Name of a member, whether it is a folder, and what opens it."""
IGNORED = ("__MACOSX", ".DS_Store")
"""What macOS adds to archives."""


def unpack(archive: Path, folder: Path, label: str | None = None) -> None:
    """Writes the files of a tar or zip archive below `folder`, which must be there.

    Only folders and files are written, with the rights of new files. Raises UserError, before a byte of it is written,
    for a member with a name that leads out of the folder, and for a link, a device or a pipe; and for an archive that
    is damaged or none. label: name at the progress bar.
    """
    try:
        members = _zip(archive) if zipfile.is_zipfile(archive) else _tar(archive)
        for name, is_folder, opened in progress_bar(members, desc=label or archive.name, unit=" files"):
            target = folder / _inside(archive, name)
            if is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened() as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        why = str(error).partition("\n")[0].rstrip(":")
        raise UserError(f"{archive} is no whole tar or zip archive ({why}); delete it and get it again") from error


def _zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as held:
        for info in held.infolist():
            kind = info.external_attr >> 28  # the kind of a Unix file; 0 where it was packed elsewhere
            if kind not in (0, 0o4, 0o10):
                raise UserError(_refused(archive, info.filename, "a link or a device"))
            yield info.filename, info.is_dir(), lambda info=info: held.open(info)


def _tar(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as held:
        for info in held:
            if not (info.isreg() or info.isdir()):
                raise UserError(_refused(archive, info.name, "a link or a device"))
            yield info.name, info.isdir(), lambda info=info: held.extractfile(info)


def _inside(archive: Path, name: str) -> Path:
    """The path of a member below the target. Raises UserError where it leads out of it."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if ".." in parts or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise UserError(_refused(archive, name, "a file outside of the target folder"))
    return Path(*parts)


def _refused(archive: Path, name: str, what: str) -> str:
    return f"{archive} would write {what}, {name}; nothing of it was kept: such an archive is not what it should be"


def content(unpacked: Path, inner: str = "") -> Path:
    """The folder that is wanted of an unpacked archive.

    inner: name of a folder or of an archive in it, which is unpacked then; "" for all. A single folder on the way to
    the content is passed through. Raises UserError if `inner` is not there.
    """
    if not inner:
        return _single(unpacked)
    found = next((path for path in sorted(unpacked.rglob(inner)) if not set(IGNORED) & set(path.parts)), None)
    if found is None:
        raise UserError(f"the archive holds no {inner}")
    if found.is_dir():
        return found
    beside = found.with_name(f"{found.name}.unpacked")
    beside.mkdir()
    unpack(found, beside)
    return _single(beside)


def _single(folder: Path) -> Path:
    """The only folder in a folder, or else the folder itself."""
    held = [path for path in folder.iterdir() if path.name not in IGNORED]
    return held[0] if len(held) == 1 and held[0].is_dir() else folder


def put(source: Path, target: Path) -> list[str]:
    """Moves the content of a folder into another on the same disk. Returns the names that the other had already."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return []
    kept = []
    for path in sorted(source.iterdir()):
        if path.name in IGNORED:
            continue
        if (target / path.name).exists():
            kept.append(path.name)
        else:
            path.rename(target / path.name)
    return kept
