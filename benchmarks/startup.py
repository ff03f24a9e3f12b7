"""Seconds until a command's first word, and until a run of the demo's size begins with its first image.

    python benchmarks/startup.py
    python benchmarks/startup.py --checkout BEFORE

starts classification/main.py and clipscore/main.py in processes of their own, in turn, and a Python that imports torch
alone; with --checkout also those of another checkout of the project, to compare with. The medians of the starts are
printed: seconds, and seconds of the processor, which depend less on what else the machine does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(ROOT)

from rlcf.errors import UserError, run_main
from rlcf.run.config import command_line
from rlcf.run.files import write_atomically
from rlcf.run.parser import Parser

BEGUN = b"%|"
"""Stands in a progress bar, whose first state is written before the first image."""


@dataclass(frozen=True)
class Start:
    """A command that is started.

    words: what Python is given, in the checkout; until_begun: wait for the progress bar, not for the end.
    """

    name: str
    words: Sequence[str]
    until_begun: bool = False


def starts(data: Path) -> dict[str, Start]:
    """Returns the commands to time, by their names on the command line.

    data: a folder with two class folders of pictures, and a place for the run's folder.
    """
    classify = ["classification/main.py", "--student", "demo-student", "--reward", "demo-reward", "--device", "cpu"]
    classify += ["--workers", "0", "--views", "12", "--selection", "0.5", "--sample-k", "2", "--tune", "prompt"]
    folder = ["--datasets", "folder", "--output", str(data / "run"), "--data"]
    return {
        "help": Start("--help", ["classification/main.py", "--help"]),
        "flag": Start("a wrong flag", ["classification/main.py", "--nothing"]),
        "folder": Start("a missing folder", [*classify, *folder, str(data / "gone")]),
        "clipscore": Start("clipscore's --help", ["clipscore/main.py", "--help"]),
        "torch": Start("torch alone", ["-c", "import torch"]),
        "run": Start("a run begins", [*classify, *folder, str(data / "pictures")], until_begun=True),
    }


def measure(start: Start, checkout: Path) -> tuple[float, float]:
    """Seconds from the start of a process to its end, or to its progress bar, and its processor's seconds.

    Raises UserError when no progress bar comes.
    """
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *start.words]
    began, said = time.perf_counter(), b""
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, cwd=checkout, env=environment, bufsize=0)
    assert process.stderr is not None
    while chunk := process.stderr.read(4096):
        said += chunk
        if start.until_begun and BEGUN in said:
            break
    taken = time.perf_counter() - began
    if start.until_begun:
        process.kill()
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0  # it was waited for
    process.stderr.close()
    if start.until_begun and BEGUN not in said:
        raise UserError(f"{' '.join(command)} did not begin: {said.decode(errors='replace')[-200:]}")
    return taken, used.ru_utime + used.ru_stime


def write_data(folder: Path) -> None:
    """Two classes of two pictures, drawn as the demo's."""
    from PIL import Image

    for name, colour in (("cat", "orange"), ("dog", "brown")):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64), colour).save(folder / "pictures" / name / f"{number}.png")


def at_least_one(text: str) -> int:
    """A flag's value, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", type=at_least_one, default=5, metavar="N", help="starts of each command (5)")
    names = list(starts(Path()))
    parser.add_argument("--starts", nargs="+", choices=names, default=names, help="what is started")
    parser.add_argument("--checkout", type=Path, metavar="FOLDER", help="another checkout, started in turn with this")
    parser.add_argument("--output", type=Path, default=Path("output/benchmarks/startup.json"), metavar="FILE")
    options = parser.parse_args(argv)
    checkouts = {"here": ROOT} | ({"there": options.checkout} if options.checkout else {})
    for folder in checkouts.values():
        if not (folder / "classification/main.py").is_file():
            raise UserError(f"{folder} is no checkout of the project: it has no classification/main.py")
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        write_data(Path(temporary))
        for start in [starts(Path(temporary))[name] for name in options.starts]:
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
            for _ in range(options.repeats):
                for name, folder in checkouts.items():
                    taken[name].append(measure(start, folder))
            rows.append({"start": start.name, "seconds and processor seconds": taken})
            told = (
                f"{name} {median(s for s, _ in times):.2f} s (processor {median(p for _, p in times):.2f})"
                for name, times in taken.items()
            )
            print(f"{start.name}: {', '.join(told)}", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"command": command_line("benchmarks/startup.py", argv), "cores": os.cpu_count(), "rows": rows}
    write_atomically(options.output, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
