"""Processes that read inputs one after another, each within limits of time, and what becomes of an input."""

import faulthandler
import json
import logging
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

from rlcf.errors import LONGEST, UserError, shortened
from rlcf.failures import sentence_of
from rlcf.run.folder import logger
from rlcf.terminal import visible
from tests.fuzz.corpus import ALL, Case, Corpus
from tests.fuzz.files import write_tree
from tests.tools import ROOT

WAITING = 10
"""An input that waits, and computes nothing, hangs after so many times the seconds of one that computes."""
MOST_BYTES = 8 * 2**30
"""Bytes that a process may ask for: a bound for the machine's sake."""


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    how: "read", "told" or "failed"; kind: of a failure, its exception and place, "hang", "memory" or "crash"; said: the
    sentence, or what went wrong in full; seconds: that it took.
    """

    number: int
    reader: str
    seed: str
    mutations: list[str]
    how: str
    kind: str = ""
    said: str = ""
    seconds: float = 0.0


def judge(reader: str, folder: Path, seed: str, beside: Path, size: int) -> tuple[str, str, str]:
    """Have a reader read the folder of an input. size: of its files, bytes. Returns `how`, `kind` and `said`."""
    used = _peak(afresh=True)
    try:
        ALL[reader].read(folder, seed, beside)
        how, kind, said = "read", "", ""
    except (UserError, OSError) as error:
        how, kind, said = (
            "told",
            "",
            str(error) if isinstance(error, UserError) else shortened(sentence_of(error) or ""),
        )
        if isinstance(error, OSError) and not ALL[reader].command:
            how, kind, said = "failed", f"{type(error).__name__} at {place_of(error)}", traceback.format_exc()
        if how == "told" and (len(visible(said).splitlines()) != 1 or len(said) > LONGEST):
            how, kind = "failed", f"no single line of at most {LONGEST} letters at {place_of(error)}"
    except (Exception, SystemExit) as error:
        how, kind, said = "failed", f"{type(error).__name__} at {place_of(error)}", traceback.format_exc()
    took = _peak() - used
    if took > ALL[reader].memory + 10 * size and how != "failed":
        how, kind, said = "failed", "memory", f"it took {took / 2**20:.0f} MB; {said}"
    return how, kind, said


def place_of(error: BaseException) -> str:
    """The last place of the project that an exception passed through, as "file:function"."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))]
    own = [frame for frame in places if not re.search("/(tests|[.]venv)/", frame.filename)] or places
    return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].name}" if own else "?"


def _peak(afresh: bool = False) -> int:
    """The most resident bytes of this process, or with `afresh` those of now, from which the most counts again."""
    try:
        if afresh:
            Path("/proc/self/clear_refs").write_text("5")
        found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    except OSError:  # a system without it
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _work(pipe: Connection, corpus: Corpus, seed: int, seconds: float, folder: Path) -> None:
    """Read the inputs whose numbers come through a pipe, and send back their outcomes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    log = (folder / "log").open("w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    warnings.simplefilter("ignore")
    logging.disable(logging.NOTSET)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(log)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    faulthandler.register(signal.SIGPROF, log, chain=True)  # tells where it is, then ends the process
    path = sys.path[:]
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            os._exit(0)
        place = folder / "input"
        case = corpus.case(seed, number)
        write_tree(place, case.tree)
        size = sum(len(content) for content in case.tree.values() if isinstance(content, bytes))
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, seconds)  # on a busy machine much more may pass
        faulthandler.dump_traceback_later(WAITING * seconds, exit=True, file=log)
        how, kind, said = judge(case.reader, place, case.seed, corpus.beside(case.reader), size)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        took = round(time.monotonic() - started, 3)
        pipe.send(Outcome(number, case.reader, case.seed, case.mutations, how, kind, said, took))
        _tidy(place, path)


def _tidy(place: Path, path: list[str]) -> None:
    sys.path[:] = path
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    shutil.rmtree(place)


class _Worker:
    """A process, and the number of the input that it reads."""

    def __init__(self, corpus: Corpus, seed: int, seconds: float, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder, self.number, self.started = folder, -1, 0.0
        self.pipe, theirs = get_context("fork").Pipe()
        given = (theirs, corpus, seed, seconds, folder)
        self.process = get_context("fork").Process(target=_work, args=given, daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, number: int) -> None:
        self.number, self.started = number, time.monotonic()
        self.pipe.send(number)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def ended(self, case: Case) -> Outcome:
        """The outcome of the input during which the process ended by itself."""
        self.process.join()
        said = (self.folder / "log").read_text()
        found = re.search(rf'File "{re.escape(str(ROOT))}/(?!tests/|[.]venv/)([^"]+)", line \d+ in (\w+)', said)
        place = f" at {found[1]}:{found[2]}" if found else ""
        hangs = said.startswith("Timeout") or self.process.exitcode == -signal.SIGPROF
        kind = "hang" if hangs else f"crash ({self.process.exitcode})"
        took = time.monotonic() - self.started
        return Outcome(
            self.number, case.reader, case.seed, case.mutations, "failed", kind + place, said, round(took, 3)
        )


def read_all(
    corpus: Corpus, numbers: Iterable[int], seed: int, workers: int, seconds: float, folder: Path
) -> Iterator[Outcome]:
    """Read the inputs of these numbers in processes. seconds: of computing, for an input; folder: to work in.

    Gives their outcomes as they come. A process that hangs or crashes is replaced.
    """
    assert corpus.seeds  # before processes are forked
    left = iter(numbers)
    pool: dict[Connection, _Worker] = {}

    def start(place: Path) -> None:
        number = next(left, None)
        if number is not None:
            worker = _Worker(corpus, seed, seconds, place)
            pool[worker.pipe] = worker
            worker.begin(number)

    try:
        for number in range(workers):
            start(folder / str(number))
        while pool:
            for pipe in wait(list(pool)):
                assert isinstance(pipe, Connection)
                worker = pool[pipe]
                try:
                    yield pipe.recv()
                except EOFError:
                    yield worker.ended(corpus.case(seed, worker.number))
                    del pool[pipe]
                    pipe.close()
                    start(worker.folder)
                    continue
                number = next(left, None)
                if number is None:
                    del pool[pipe]
                    worker.end()
                else:
                    worker.begin(number)
    finally:
        for worker in pool.values():
            worker.end()
        shutil.rmtree(folder, ignore_errors=True)


def require_whole_read(corpus: Corpus, workers: int, seconds: float, folder: Path) -> None:
    """Raises UserError where whole files are not read: their mutations would test nothing."""
    for outcome in read_all(corpus, range(-len(corpus.whole), 0), 0, workers, seconds, folder):
        if outcome.how != "read":
            raise UserError(
                f"the whole files '{outcome.seed}' of {outcome.reader} are not read ({outcome.kind} {outcome.said}); "
                f"delete {corpus.folder}, if they are of another version, or mend that"
            )


def keep(folder: Path, case: Case, outcome: Outcome) -> None:
    """Write a failing input and what became of it into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    write_tree(folder / "input", case.tree)
    (folder / "case.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n")
