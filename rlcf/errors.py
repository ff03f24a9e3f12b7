"""Mistakes a user can make, told in one sentence."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake of the user's: its message names the culprit and the remedy in one sentence. Exit code 2."""


def run_main(main: Callable[[], None]) -> None:
    """Run an entry script: a `UserError` becomes one line and exit code 2, Ctrl-C exit code 130."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; the same command continues where it was", file=sys.stderr)
        sys.exit(130)
