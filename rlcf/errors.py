"""Mistakes a user can make and failures of the world, told in one sentence."""

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rlcf.failures import sentence_of
from rlcf.start import stopped_line
from rlcf.terminal import visible, visible_output

LONGEST = 2000
"""Characters of a sentence."""


class UserError(Exception):
    """A mistake of the user's: its message names the culprit and the remedy in one sentence. Exit code 2.

    The middle of a message beyond `LONGEST` is left out: the name that it tells may be of a stranger's file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


def shortened(text: str) -> str:
    """A text without its middle where it is longer than `LONGEST`."""
    half = LONGEST // 2 - 3
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


def run_main(main: Callable[[], None]) -> None:
    """Run an entry script, and end the process in one line where the script does not come to its end.

    The exit code is 2 for a `UserError` and for a failure that `sentence_of` knows, 128 and the signal's number for
    Ctrl-C (130), SIGTERM (143) and SIGHUP (129), and 141 when nobody reads the output any more. Nothing that it prints
    controls the terminal.
    """
    try:
        try:
            with visible_output():
                main()
        finally:
            if sys.stdout is not None:  # a closed one
                sys.stdout.flush()
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        say(stopped_line(number))
        sys.exit(128 + number)
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # what is left for the output is lost, quietly
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        sentence = str(error) if isinstance(error, UserError) else sentence_of(error)
        if sentence is None:
            raise
        say(f"error: {visible(shortened(sentence))}")
        sys.exit(2)


def say(line: str) -> None:
    """Print a line on standard error, if anybody can read it."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:  # a closed one
            print(line, file=sys.stderr, flush=True)


@contextmanager
def flags_as_settings() -> Iterator[None]:
    """In its body a `UserError` names settings as Python code writes them: sample_k in place of --sample-k."""
    try:
        yield
    except UserError as error:
        message = re.sub(r"(?<![\w/.-])--([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), str(error))
        raise UserError(message) from error.__cause__
