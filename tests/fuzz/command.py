"""The command line of `python -m tests.fuzz`."""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from tqdm import tqdm

import tests.fuzz
from rlcf.errors import UserError
from rlcf.run.lock import FolderLock
from rlcf.run.parser import Parser
from tests.fuzz.corpus import ALL, Corpus
from tests.fuzz.pool import Outcome, judge, keep, read_all, require_whole_read

KEPT = 3
"""Failing inputs of a kind that are kept."""
CASES = "cases.jsonl"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tests.fuzz", description=tests.fuzz.__doc__)
    add = parser.add_argument
    add("--inputs", type=int, default=20_000, metavar="N", help="inputs of all readers together (20000)")
    add("--seed", type=int, default=0, metavar="N", help="with an input's number decides it (0)")
    add("--workers", type=int, default=2, metavar="N", help="processes that read inputs (2)")
    add(
        "--seconds",
        type=float,
        default=60,
        metavar="N",
        help="of computing, after which an input hangs; ten times as many of waiting (60)",
    )
    add("--readers", nargs="+", choices=list(ALL), default=list(ALL), metavar="NAME", help=f"of {', '.join(ALL)} (all)")
    add("--output", type=Path, default=Path("output/fuzz"), metavar="DIR", help="folder of the state and the failures")
    add("--replay", type=Path, metavar="FOLDER", help="read a failing input again: a folder of DIR/failures")
    given = parser.parse_args(argv)
    if given.inputs < 1 or given.workers < 1 or given.seconds <= 0:
        raise UserError("--inputs, --workers and --seconds must be above 0")
    return given


def read_state(file: Path, seed: int, readers: Sequence[str]) -> list[Outcome]:
    """The outcomes so far, after the line that tells what they are of; a torn last line is cut off.

    Raises UserError for a file of another seed or other readers.
    """
    told = {"seed": seed, "readers": list(readers)}
    if not file.exists():
        file.write_text(json.dumps(told) + "\n")
    whole, _, _ = file.read_text().rpartition("\n")
    file.write_text(whole + "\n")
    first, *lines = whole.split("\n")
    try:
        before, outcomes = json.loads(first), [Outcome(**json.loads(line)) for line in lines]
    except (ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged; delete it, or choose another --output") from error
    if before != told:
        raise UserError(f"{file} is of another --seed or other --readers; choose another --output")
    return outcomes


def replay(folder: Path) -> int:
    """Read a kept input again and tell what becomes of it. Returns the exit code."""
    try:
        case = json.loads((folder / "case.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no failing input; give a folder of failures/") from error
    corpus = Corpus(folder.absolute().parents[1] / "corpus", [case["reader"]])
    assert corpus.seeds
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(folder / "input", Path(place) / "input", symlinks=True, copy_function=_copy)
        beside = corpus.beside(case["reader"])
        how, kind, said = judge(case["reader"], Path(place) / "input", case["seed"], beside, 0)
    print(f"{case['reader']}, {case['seed']}: {'; '.join(case['mutations'])}")
    print("\n".join(filter(None, [f"{how}: {kind}" if kind else how, said])))
    return int(how == "failed")


def _copy(source: str, target: str) -> None:
    """A file, and a pipe without waiting for it."""

    if Path(source).is_fifo():
        os.mkfifo(target)
    else:
        shutil.copy(source, target)


def table(outcomes: Sequence[Outcome], output: Path) -> str:
    """Counts of each reader, then each kind of failure with the command that shows one."""
    rows = [f"{'reader':<26}{'inputs':>8}{'read':>8}{'told':>8}{'failed':>8}{'s each':>8}"]
    for name in [*sorted({outcome.reader for outcome in outcomes}), "all"]:
        own = [outcome for outcome in outcomes if name in (outcome.reader, "all")]
        count = Counter(outcome.how for outcome in own)
        seconds = sum(outcome.seconds for outcome in own) / max(1, len(own))
        numbers = "".join(f"{n:>8}" for n in (len(own), count["read"], count["told"], count["failed"]))
        rows.append(f"{name:<26}{numbers}{seconds:>8.2f}")
    failed = [outcome for outcome in outcomes if outcome.how == "failed"]
    kinds = Counter((outcome.reader, outcome.kind) for outcome in failed)
    for (name, kind), count in kinds.most_common():
        first = next(outcome for outcome in failed if (outcome.reader, outcome.kind) == (name, kind))
        rows.append(f"{count} x {name}: {kind}\n    python -m tests.fuzz --replay {kept_as(output, first)}")
    mutated = Counter(mutation.split(": ", 1)[1] for outcome in outcomes for mutation in outcome.mutations)
    rows.append(f"{len(mutated)} kinds of mutations, {mutated.total()} in all; {len(kinds)} kinds of failures")
    return "\n".join(rows)


def kept_as(output: Path, outcome: Outcome) -> Path:
    return output / "failures" / f"{outcome.reader}-{outcome.number}"


def main(argv: list[str] | None = None) -> None:
    given = parse_arguments(argv)
    torch.set_num_threads(1)  # threads do not survive a fork
    if given.replay:
        sys.exit(replay(given.replay))
    output = given.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(output)
    outcomes = read_state(output / CASES, given.seed, given.readers)
    corpus = Corpus(output / "corpus", given.readers)
    done = {outcome.number for outcome in outcomes}
    numbers = [number for number in range(given.inputs) if number not in done]
    kinds = Counter((outcome.reader, outcome.kind) for outcome in outcomes if outcome.how == "failed")
    require_whole_read(corpus, given.workers, given.seconds, output / "work")
    try:
        with (output / CASES).open("a", buffering=1) as state:
            read = read_all(corpus, numbers, given.seed, given.workers, given.seconds, output / "work")
            for outcome in (shown := tqdm(read, initial=len(done), total=len(done) + len(numbers), unit="input")):
                kinds[outcome.reader, outcome.kind] += outcome.how == "failed"
                if outcome.how == "failed" and kinds[outcome.reader, outcome.kind] <= KEPT:
                    keep(kept_as(output, outcome), corpus.case(given.seed, outcome.number), outcome)
                outcomes.append(outcome)
                state.write(json.dumps(asdict(outcome)) + "\n")
                shown.set_postfix_str(f"{kinds.total()} failed", refresh=False)
    finally:
        lock.close()
        if outcomes:
            print(table(outcomes, given.output), flush=True)
    sys.exit(int(any(outcome.how == "failed" for outcome in outcomes)))
