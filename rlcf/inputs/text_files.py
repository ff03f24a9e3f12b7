"""The one reader of text files that users bring."""

import codecs
import re
from pathlib import Path

from rlcf.errors import UserError
from rlcf.run.files import is_special


def read_lines(file: Path) -> list[str]:
    """The lines of a text file without blank ones. Raises UserError for a file that is missing or not UTF-8 text."""
    try:
        if not file.is_file() or is_special(file):
            raise UserError(f"there is no {file}; it should hold one entry a line")
        held = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    try:
        wide = held.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = held.decode("utf-16" if wide else "utf-8-sig")
        if "\0" in text:
            raise ValueError("it has zero bytes")
    except ValueError as error:
        raise UserError(f"{file} is no text file in UTF-8; write it as one") from error
    return [line.strip() for line in re.split("\r\n|\r|\n", text) if line.strip()]
