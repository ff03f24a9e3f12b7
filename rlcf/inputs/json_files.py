"""The one reader of JSON files that users bring. Whatever a file holds, it is read or told in one sentence."""

import json
import math
from pathlib import Path
from typing import Any

from rlcf.errors import UserError
from rlcf.run.files import is_special


def read_json(file: Path) -> Any:
    """The content of a JSON file in UTF-8 or UTF-16, with or without a byte-order mark.

    Of JSON Lines, an object a line, it is the list of the objects.
    Raises UserError for a file that is missing, a pipe, no JSON, or that has a name twice in one object.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            seen = set[str]()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise UserError(f"{file} names '{twice}' twice; keep one of them")
        return table

    try:
        if is_special(file):
            raise ValueError("it is a pipe or a device; write it into a file")
        held = file.read_bytes()
        text = held.decode(json.detect_encoding(held), "surrogatepass")
        try:
            return json.loads(text, object_pairs_hook=unique)
        except ValueError:
            lines = [line for line in text.split("\n") if line.strip()]
            if len(lines) < 2 or any(line.strip()[0] + line.strip()[-1] != "{}" for line in lines):
                raise
            return [json.loads(line, object_pairs_hook=unique) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not in UTF-8; save it so"
        elif isinstance(error, RecursionError):
            reason = "it is nested too deep"
        raise UserError(f"{file} cannot be read as JSON ({reason})") from error


def as_text(value: Any, called: str) -> str:
    """A text whose lone surrogates are question marks. Raises UserError for what is no text, and for a blank one.

    called: its name in the error, with what holds it.
    """
    if not isinstance(value, str):
        raise UserError(f"{called} must be a text and is {shown(value)}")
    if not value.strip():
        raise UserError(f"{called} is empty; give it words or take it out")
    return value.encode("utf-8", "replace").decode("utf-8")


def as_id(value: Any, called: str) -> str:
    """An id as text: 7, 7.0, "7" and "007" are the same. Raises UserError for what is neither number nor text."""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        return value.lstrip("0") or "0" if value.isascii() and value.isdigit() else value
    raise UserError(f"{called} must be a whole number or a text and is {shown(value)}")


def shown(value: Any) -> str:
    """The beginning of a value as an error shows it, however deep it is."""
    try:
        return f"{value!r:.60}"
    except RecursionError:
        return f"a nested {type(value).__name__}"
