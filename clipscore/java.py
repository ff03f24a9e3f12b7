"""The caption benchmarks' Java programs, as pycocoevalcap ships them: the PTB tokenizer, METEOR and SPICE.

They are started here and not through pycocoevalcap's own classes, which wait for ever when Java fails, write into the
folder where they are installed, and download what SPICE lacks. The programs, their arguments and so their numbers are
the same.
"""

import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from pycocoevalcap.meteor import meteor as shipped_meteor
from pycocoevalcap.spice import spice as shipped_spice
from pycocoevalcap.tokenizer import ptbtokenizer

from rlcf.errors import UserError
from rlcf.progress import progress_bar

SPICE_LIB = Path(shipped_spice.__file__).parent / "lib"
LAST_JAVA_OF_SPICE = 14
SPICE_FILES = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
UTF8 = "-Dfile.encoding=UTF-8"  # whatever the locale
PATIENCE = 300.0, 2.0
"""Seconds until a program is given up: for its start, and for each caption."""


def java_version() -> int | None:
    """Major version of the Java runtime, 8 for 1.8; None when there is none that starts."""
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True, errors="replace", timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', said.stderr)
    return int(found[1]) if found and said.returncode == 0 else None


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
    command = ["java", UTF8, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with tempfile.TemporaryFile("w+") as errors:
        try:
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
            ) as program:
                watch = threading.Timer(_patience(len(candidates)), program.kill)
                watch.start()
                try:
                    return _talk(program, candidates, references)
                finally:
                    watch.cancel()
                    program.kill()
        except (OSError, ValueError) as error:
            errors.seek(0)
            raise _failed("METEOR", errors.read()) from error


def _talk(
    program: "subprocess.Popen[str]", candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """Its protocol: a SCORE line a caption gives a line of statistics, an EVAL line over all gives the scores."""
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
        done = subprocess.run(
            ["java", UTF8, *options], input=text, capture_output=True, encoding="utf-8", timeout=_patience(captions)
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise _failed(called, str(error)) from error
    if done.returncode:
        raise _failed(called, done.stderr)
    return done.stdout


def _patience(captions: int) -> float:
    start, each = PATIENCE
    return start + each * captions


def _failed(called: str, said: str) -> UserError:
    reason = (said.strip().splitlines() or ["it gave no answer"])[0]
    return UserError(f"Java's program for {called} failed ({reason}); mend the Java runtime or pass --no-java")
