"""Text on its way to the terminal or the log: its control characters are shown and not obeyed."""

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 controls, separators of lines, reversals of the direction of reading, and lone surrogates."""


def visible(text: str, kept: str = "") -> str:
    r"""A text whose control characters and lone surrogates are written as Python writes them.

    kept: the control characters that stay as they are.

    >>> print(visible("caf\xe9\x1b[2J\n"))
    café\x1b[2J\n
    """

    def written(found: re.Match[str]) -> str:
        return found[0] if found[0] in kept else found[0].encode("unicode_escape").decode()

    return _CONTROLS.sub(written, text)


class VisibleFormatter(logging.Formatter):
    """A formatter whose every record is one line of `visible` text."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


@contextmanager
def visible_output() -> Iterator[None]:
    """In its body what is written to standard output and standard error is `visible`, but for line ends and tabs.

    Characters that the terminal's encoding lacks are written as Python writes them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    out: Any = _Visible(sys.stdout)
    err: Any = _Visible(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err):
        yield


class _Visible:
    """A text stream in front of another."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text, kept="\n\r\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
