"""Mistakes a user can make, told in one sentence."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rlcf.terminal import visible, visible_output


class UserError(Exception):
    """A mistake of the user's: its message names the culprit and the remedy in one sentence. Exit code 2."""


def run_main(main: Callable[[], None]) -> None:
    """Run an entry script: a `UserError` becomes one line and exit code 2, Ctrl-C exit code 130.

    Nothing that it prints controls the terminal.
    """
    try:
        with visible_output():
            main()
    except UserError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where it was", file=sys.stderr)
        sys.exit(130)


@contextmanager
def flags_as_settings() -> Iterator[None]:
    """In its body a `UserError` names settings as Python code writes them: sample_k in place of --sample-k."""
    try:
        yield
    except UserError as error:
        message = re.sub(r"(?<![\w/.-])--([a-z][a-z0-9-]*)", lambda flag: flag[1].replace("-", "_"), str(error))
        raise UserError(message) from error.__cause__
