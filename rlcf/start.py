"""Starts a command, so that a signal ends it in one line at any time: during its imports, its work and its wind-up.

It imports little, so that it is soon there.
"""

import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FrameType

from rlcf.light_imports import light_imports

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = [number for name in NAMES if (number := getattr(signal, name, None)) is not None]
"""Ctrl-C, a scheduler's end of a job, the end of the terminal, and what schedulers send some time before they kill."""
WIND_UP = 10.0
"""Seconds after a signal in which further ones change nothing: state is being written, and Ctrl-C is often pressed
twice."""


class Stopped(KeyboardInterrupt):
    """A signal asks the process to stop. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def start(module: str) -> None:
    """Runs `main` of a module as a command, and ends the process. Call it before anything that is slow to import.

    A signal during the module's imports ends the process at once: there is nothing to keep yet. Afterwards it raises
    `Stopped`, so that the run's state is written. A signal that is ignored, as under nohup, stays ignored.
    """
    _use_utf8()
    signals = _Signals()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signals)
    from rlcf.errors import run_main

    def imported_main() -> None:
        main = importlib.import_module(module).main
        signals.imported = True
        main()

    run_main(imported_main)
    sys.exit()


@contextmanager
def importing(*needed: str) -> Iterator[None]:
    """A context of imports that are slow, in a command that `start` has started: see `light_imports`, also for needed.

    As during the imports of `start`, a signal ends the process at once. Where other code has called `main`, for which
    the libraries may be more than this command needs, nothing is special.
    """
    handlers = [handler for handler in map(signal.getsignal, SIGNALS) if isinstance(handler, _Signals)]
    for handler in handlers:
        handler.imported = False
    with light_imports(*needed) if handlers else nullcontext():
        yield
    for handler in handlers:
        handler.imported = True


def started() -> bool:
    """True in a process that `start` has started: its memory and its signals are the command's own."""
    return any(isinstance(signal.getsignal(number), _Signals) for number in SIGNALS)


def _use_utf8() -> None:
    """Starts this command again in Python's UTF-8 mode where the locale has another encoding.

    Names of files and their contents are then the same in every locale. The terminal keeps its encoding.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return
    if sys.stdout is not None:
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def stopped_line(number: int) -> str:
    """What a command that was stopped by a signal says."""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    return f"\nstopped{by}; the same command continues where it was"


class _Signals:
    """The handler of signals of this process, and of those that are forked from it."""

    def __init__(self) -> None:
        self.process, self.imported, self.last = os.getpid(), False, -WIND_UP

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # one that reads images has nothing to keep or to tell
            os._exit(0)
        if not self.imported:  # an exception would pass through modules that are half there
            os.write(2, f"{stopped_line(number)}\n".encode())
            os._exit(128 + number)
        if time.monotonic() - self.last > WIND_UP:
            self.last = time.monotonic()
            if hasattr(signal, "SIGCHLD"):  # the same signal ends the reading processes: their end is no error any more
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            raise Stopped(number)


classify, retrieve, caption, clipscore, report = (
    partial(start, f"{room}.main") for room in ("classification", "retrieval", "caption", "clipscore", "rlcf.report")
)
data = partial(start, "rlcf.data.main")
"""The commands that an installation brings."""
