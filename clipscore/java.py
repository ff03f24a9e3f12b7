"""The caption benchmarks' Java programs, as pycocoevalcap ships them: the PTB tokenizer, METEOR and SPICE.

They are started here and not through pycocoevalcap's own classes, which wait for ever when Java fails, write into the
folder where they are installed, and download what SPICE lacks. The programs, their arguments and so their numbers are
the same.
"""

import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pycocoevalcap.meteor import meteor as shipped_meteor
from pycocoevalcap.spice import spice as shipped_spice
from pycocoevalcap.tokenizer import ptbtokenizer
from tqdm import tqdm

from rlcf.errors import UserError
from rlcf.progress import duration, progress_bar

SPICE_LIB = Path(shipped_spice.__file__).parent / "lib"
LAST_JAVA_OF_SPICE = 14
SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
UTF8 = "-Dfile.encoding=UTF-8"  # whatever the locale
SLOW = 60.0
"""Seconds after which a program that has not answered yet is told to be waited for."""
PATIENCE = 3600.0, 10.0
"""Seconds until a program is given up: for its start, and for each caption. An idle machine takes a hundredth of it."""


def java_version() -> int | None:
    """Major version of the Java runtime, 8 for 1.8; None when there is none, or it fails.

    Raises UserError when it does not answer in time.
    """
    try:
        with _started("java -version", ["-version"], 0) as (program, _):
            said = program.communicate()[1]
    except OSError:
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found and program.returncode == 0 else None


def check_spice(version: int) -> None:
    """version: Java's. Raises UserError when SPICE cannot run with it, or lacks what pycocoevalcap does not ship."""
    if version > LAST_JAVA_OF_SPICE:
        raise UserError(
            f"SPICE needs the JavaScript engine of Java 8 to {LAST_JAVA_OF_SPICE} and this is Java {version}; "
            "put such a Java first on the PATH or leave --spice out"
        )
    missing = [name for name in SPICE_FILES if not (SPICE_LIB / name).is_file()]
    if missing:
        raise UserError(
            f"SPICE lacks {' and '.join(missing)}; put them from Stanford CoreNLP 3.6.0 "
            f"(stanford-corenlp-full-2015-12-09.zip) into {SPICE_LIB}, or leave --spice out"
        )


def tokenize(captions: Sequence[str]) -> list[str]:
    """Each caption's words, lower case, without punctuation, joined by spaces.

    captions: no line breaks in them. Raises UserError when the program fails.
    """
    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    options = ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    lines = _run("the PTB tokenizer", options, len(captions), "\n".join(captions)).split("\n")
    if len(lines) != len(captions):
        raise _failed("the PTB tokenizer", f"{len(lines)} lines for {len(captions)} captions")
    words = (line.rstrip().split(" ") for line in lines)
    return [" ".join(word for word in line if word not in ptbtokenizer.PUNCTUATIONS) for line in words]


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR 1.5 (Denkowski and Lavie, WMT 2014): of the corpus, and of each caption.

    candidates, references: tokenised captions. Raises UserError when the program fails or does not answer in time.
    """
    jar = Path(shipped_meteor.__file__).parent / shipped_meteor.METEOR_JAR
    options = [UTF8, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile("w+") as errors:
        try:
            with _started("METEOR", options, len(candidates), errors) as (program, answers):
                return _talk(program, candidates, references, answers)
        except (OSError, ValueError) as error:
            errors.seek(0)
            raise _failed("METEOR", errors.read()) from error


def _talk(
    program: "subprocess.Popen[str]",
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    answers: Callable[[], None],
) -> tuple[float, list[float]]:
    """Its protocol: a SCORE line a caption gives a line of statistics, an EVAL line over all gives the scores.

    answers: called when it has answered.
    """
    asked, answered = program.stdin, program.stdout
    assert asked is not None and answered is not None

    def say(command: str, parts: Sequence[str]) -> None:
        asked.write(" ||| ".join([command, *parts]) + "\n")
        asked.flush()

    statistics = []
    pairs = zip(candidates, references, strict=True)
    for candidate, group in progress_bar(pairs, desc="METEOR", total=len(candidates), unit="caption"):
        say("SCORE", [text.replace("|||", "").replace("  ", " ") for text in (*group, candidate)])
        statistics.append(answered.readline().strip())
        answers()
    say("EVAL", statistics)
    scores = [float(answered.readline()) for _ in candidates]
    return float(answered.readline()), scores


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """SPICE (Anderson et al., ECCV 2016): F-scores over scene graphs, their mean and each caption's.

    candidates, references: tokenised captions. Raises UserError when the program or a file of it fails.
    """
    jar = Path(shipped_spice.__file__).parent / shipped_spice.SPICE_JAR
    pairs = enumerate(zip(candidates, references, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "captions.json", Path(folder) / "scores.json"
        asked.write_text(
            json.dumps([{"image_id": i, "test": c, "refs": list(group)} for i, (c, group) in pairs]), encoding="utf-8"
        )
        options = ["-Xmx8G", "-jar", str(jar), str(asked), "-out", str(answered), "-subset", "-silent"]
        _run("SPICE", options, len(candidates))
        try:
            found = {
                row["image_id"]: float(row["scores"]["All"]["f"])
                for row in json.loads(answered.read_text(encoding="utf-8"))
            }
            scores = [found[i] for i in range(len(candidates))]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _failed("SPICE", f"its scores cannot be read: {error}") from error
    return sum(scores) / len(scores), scores


def _run(called: str, options: Sequence[str], captions: int, text: str = "") -> str:
    """Run a program. Returns the text that it writes to its standard output."""
    try:
        with _started(called, [UTF8, *options], captions) as (program, _):
            answer, said = program.communicate(text)
    except (OSError, ValueError) as error:
        raise _failed(called, str(error)) from error
    if program.returncode:
        raise _failed(called, said)
    return answer


@contextmanager
def _started(
    called: str, options: Sequence[str], captions: int, errors: "IO[str] | int" = subprocess.PIPE
) -> "Iterator[tuple[subprocess.Popen[str], Callable[[], None]]]":
    """In its body a Java program runs. Gives it, and a function to call when it has answered.

    Until then it is told once that a slow one is waited for. Raises UserError when it is given up after `PATIENCE`.
    errors: what its standard error goes into.
    """
    start, each = PATIENCE
    patience, given_up = start + each * captions, threading.Event()
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            ["java", *options], stdin=pipe, stdout=pipe, stderr=errors, encoding="utf-8", errors="replace"
        ) as program:

            def tell() -> None:
                said = f"{called}: Java has not answered for {duration(SLOW)}; going on to wait, a busy machine is slow"
                tqdm.write(said, file=sys.stderr)

            def give_up() -> None:
                given_up.set()
                program.kill()

            timers = threading.Timer(SLOW, tell), threading.Timer(patience, give_up)
            for timer in timers:
                timer.daemon = True
                timer.start()
            try:
                yield program, timers[0].cancel
            finally:
                for timer in timers:
                    timer.cancel()
                program.kill()
    except (OSError, ValueError):  # what comes of a program that is ended amid its work
        if not given_up.is_set():
            raise
    if given_up.is_set():
        raise UserError(
            f"{called}: Java did not finish in {duration(patience)}; run it again when the machine is less busy, or "
            "pass --no-java"
        )


def _failed(called: str, said: str) -> UserError:
    reason = (said.strip().splitlines() or ["it ended without an answer"])[0]
    return UserError(f"Java's program for {called} failed ({reason}); mend the Java runtime or pass --no-java")
