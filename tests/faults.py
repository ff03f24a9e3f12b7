"""Commands in forked processes that something befalls: a full disk, a signal, a kill, too little of everything.

Hundreds of them cost one import: a process is forked from the tests' own, which has imported the command.
"""

import importlib
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlcf.start import start

Fault = Callable[[], object]
"""Called in the new process before the command begins: arms what befalls it."""


@dataclass(frozen=True)
class Ended:
    """How a process ended. code: its exit code, -9 for SIGKILL; printed: what it wrote; peak: resident bytes."""

    code: int
    printed: str
    peak: int

    @property
    def lines(self) -> list[str]:
        """The lines that are no progress bar."""
        rows = (line.rsplit("\r", 1)[-1] for line in self.printed.splitlines())
        return [row for row in rows if row.strip() and "it/s" not in row and "s/it" not in row and "%|" not in row]

    @property
    def last(self) -> str:
        """The last line, such as the sentence of a mistake."""
        return self.lines[-1] if self.lines else ""


def forked(work: Callable[[], object], fault: Fault = lambda: None, seconds: float = 60) -> Ended:
    """Do some work in a new process.

    Returns how it ended. Raises TimeoutError, after killing it, for one that takes longer than `seconds`.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            os.close(reading)
            for number in (1, 2):
                os.dup2(writing, number)
            os.close(writing)
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
            fault()
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    os.set_blocking(reading, False)
    printed, deadline = b"", time.monotonic() + seconds
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        with_more = True
        while with_more:
            try:
                chunk = os.read(reading, 1 << 16)
                printed, with_more = printed + chunk, bool(chunk)
            except BlockingIOError:
                with_more = False
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(reading)
            raise TimeoutError(f"it hangs; it printed: {printed.decode(errors='replace')}")
        time.sleep(0.002)
    os.close(reading)
    return Ended(os.waitstatus_to_exitcode(status), printed.decode(errors="replace"), used.ru_maxrss * 1024)


def command(module: str, flags: Sequence[object], fault: Fault = lambda: None, **how) -> Ended:
    """Run an entry script's module as a command in a new process; see `forked`."""

    def work() -> None:
        sys.argv = [f"{module.replace('.', '/')}.py", *map(str, flags)]
        start(module)

    return forked(work, fault, **how)


# ---- what befalls ----


def at_operation(count: int, folder: Path, then: Callable[[str], object]) -> Fault:
    """From the `count`-th change to files below a folder on, 1 for the first, calls `then` with the path before each.

    Changes are opening to write, making folders, replacing and truncating.
    """
    seen = [0]

    def hook(event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            changes = isinstance(path, str) and bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            path, changes = args[0] if args else None, event in ("os.mkdir", "os.rename", "os.truncate")
        if changes and str(path).startswith(str(folder)):
            seen[0] += 1
            if seen[0] >= count:
                then(str(path))

    return lambda: sys.addaudithook(hook)


def fails(number: int) -> Callable[[str], object]:
    """Lets an operation fail. number: the system's number of the error."""

    def fail(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    return fail


def sends(number: int) -> Callable[[str], object]:
    """Sends this process a signal."""
    return lambda path: os.kill(os.getpid(), number)


def limits(kind: int, most: int) -> Fault:
    """Limits what the process may take. kind: of Python's `resource`, such as RLIMIT_FSIZE, bytes of a file."""
    return lambda: resource.setrlimit(kind, (most, most))


def operations(module: str, flags: Sequence[object], folder: Path) -> int:
    """Number of changes to the files below a folder that a run makes. The folder is removed afterwards.

    What the run imports as it goes is imported here, so that the processes to come need not.
    """

    def tell() -> None:
        sys.addaudithook(lambda event, args: event == "import" and os.write(1, f"\n#import {args[0]}\n".encode()))
        at_operation(1, folder, lambda path: os.write(1, b"\n#change\n"))()

    ended = command(module, flags, tell)
    assert ended.code == 0, ended.printed
    for name in re.findall("^#import (.+)$", ended.printed, re.MULTILINE):
        with suppress(Exception):  # some are asked for and are not there
            importlib.import_module(name)
    shutil.rmtree(folder)
    return ended.printed.count("#change")


def assert_told(ended: Ended, *words: str) -> None:
    """The process ended with exit code 2 and one sentence, the last line, which names a remedy and holds the words."""
    assert ended.code == 2 and "Traceback" not in ended.printed, ended.printed
    assert [line for line in ended.lines if line.startswith("error: ")] == [ended.last], ended.printed
    assert ";" in ended.last, ended.last
    for word in words:
        assert word in ended.last, ended.last


def assert_stopped(ended: Ended, name: str) -> None:
    """The process ended after a signal as it should: with one line and the exit code that shells give."""
    by = "" if name == "SIGINT" else f" by {name}"
    assert ended.code == 128 + getattr(signal, name), ended.printed
    assert ended.last == f"stopped{by}; the same command continues where it was", ended.printed
    assert "Traceback" not in ended.printed, ended.printed
