"""Progress bars, and lengths of time as people say them."""

import sys
from typing import Any

from tqdm import tqdm

IN_A_FILE = 30.0
"""Seconds between two states of a bar that goes into a file, where each stays; on a terminal it is a tenth."""


def progress_bar(iterable: Any = None, **settings: Any) -> Any:
    """tqdm's bar on standard error, with its settings. Into a file, or a pipe, it writes seldom."""
    if sys.stderr is None or not sys.stderr.isatty():
        settings = {"mininterval": IN_A_FILE, "maxinterval": IN_A_FILE, **settings}
    return tqdm(iterable, **settings)


def duration(seconds: float) -> str:
    """A length of time, to about two digits.

    >>> [duration(seconds) for seconds in (8.2, 90, 3600, 400_000)]
    ['8 s', '1 min 30 s', '1 h', '4 days 15 h']
    """
    for length, name, small, small_name in ((86400, "days", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= length * (2 if name == "days" else 1):
            rest = int(seconds % length // small)
            return f"{int(seconds // length)} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{seconds:.0f} s"
