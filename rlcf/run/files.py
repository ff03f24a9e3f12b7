"""Names files, and writes them atomically: a reader finds the old content or the whole new one, also after a crash."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from rlcf.errors import UserError
from rlcf.failures import not_written

LONGEST_NAME = 200
"""Bytes of a file name; file systems allow 255, of which suffixes need some."""


def file_name(name: str) -> str:
    """The file name of a dataset's or model's name: another one for each name.

    The first colon becomes a hyphen, other characters than letters, digits, "_", "-" and "." their number. A long name
    is cut and gets a digest.

    >>> file_name("folder:val/red cats")
    'folder-val%2Fred%20cats'
    """
    plain = re.sub(r"[^\w.-]", lambda found: f"%{ord(found[0]):02X}", name.replace(":", "-", 1))
    whole = os.fsencode(plain)
    if len(whole) <= LONGEST_NAME:
        return plain
    return whole[: LONGEST_NAME - 17].decode(errors="ignore") + "-" + hashlib.sha256(whole).hexdigest()[:16]


def is_special(file: Path) -> bool:
    """True for a named pipe, a device or a socket. It must not be opened: reading it may never end.

    Raises OSError for a file that is missing.
    """
    mode = file.stat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """A context in which `file` is written. Raises UserError, with the file and the remedy, where that fails."""
    try:
        yield
    except UserError:  # told already
        raise
    except Exception as error:
        # torch.save raises a RuntimeError while it handles the OSError.
        failed = next((e for e in (error, error.__context__) if isinstance(e, OSError | SafetensorError)), None)
        if failed is None:
            raise
        raise UserError(not_written(file, failed)) from error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A context in which a temporary file beside `file` is written, which then replaces it.

    If anything is raised, the temporary file is removed and `file` stays as it was. Raises UserError as `writing`.
    """
    temporary = file.with_name(f".{file.name}.tmp")
    with writing(file):
        try:
            temporary.unlink(missing_ok=True)  # what a killed process left
            temporary.touch()
            rights = stat.S_IMODE(
                temporary.stat().st_mode
            )  # those of the umask; some libraries give the owner alone any
            yield temporary
            temporary.chmod(rights)
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_atomically(file: Path, content: str | bytes) -> None:
    """Writes a text, or bytes, to a file, by way of a temporary file beside it. Raises UserError as `writing`."""
    with replacing(file) as temporary:
        temporary.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)


def write_entries_atomically(file: Path, entries: Iterable[tuple[str, Any]]) -> None:
    """Writes a JSON object as `to_json` does, an entry at a time, so that it need not fit into memory.

    entries: its keys, each once, and their values. Raises UserError as `writing`.
    """
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8") as stream:
        before = "{\n"
        for key, value in entries:
            stream.write(before + to_json({key: value})[len("{\n") : -len("\n}\n")])
            before = ",\n"
        stream.write("\n}\n" if before == ",\n" else "{}\n")


def to_json(content: Any) -> str:
    """JSON that people read, with a line end. What of a file name is not UTF-8 is written as JSON's escapes."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"
