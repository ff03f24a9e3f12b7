"""The demo: some methods of the study on a few pictures that no model was trained on, with the tiny models of assets/.

    python -m demo.show output/demo                   # classification, retrieval and captioning
    python -m demo.show output/demo classification    # that one alone

Leaves in the folder the pictures, the run folder of each method, the tables (results.md), pictures of examples
(classification.png, captioning.png), and a page of each task to look at its runs with (classification.html, ...).
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.show")

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.pictures import PICTURES
from demo.report import CAPTIONERS, CLASSIFIED, TABLES
from demo.runs import SHIPPED, run_script, two_at_a_time
from demo.study.methods import CAPTIONING, CLASSIFICATION, RETRIEVAL, Task, flags_of
from demo.world import TEST_SEED
from rlcf.run.files import write_atomically
from rlcf.run.parser import Parser


@dataclass(frozen=True)
class Shown:
    """The runs, styles and sizes with which the demo shows a task of the study.

    runs: name -> flags, the longest first; size: pictures of a class, or scenes; pictures: the folder of these.
    """

    task: Task
    runs: Mapping[str, list[str]]
    size: int
    pictures: str
    styles: tuple[str, ...]


LONGEST = ("anchored-mean", "rlcf", "kd")
"""Runs of classification that are started first, so that both processes end at about the same time."""


def _captioner(name: str) -> list[str]:
    return [*flags_of(CAPTIONING, "rlcf", SHIPPED), "--checkpoint", f"demo-{name}"]


SHOWN = {
    "classification": Shown(
        CLASSIFICATION,
        {name: flags_of(CLASSIFICATION, name, SHIPPED) for name in dict.fromkeys((*LONGEST, *CLASSIFIED))},
        size=1,
        pictures="single",
        styles=("clean", "blur", "noto"),
    ),
    "retrieval": Shown(
        RETRIEVAL,
        {name: [*flags_of(RETRIEVAL, name, SHIPPED), "--limit", "100"] for name in ("rlcf", "reward")},
        size=100,
        pictures="scenes",
        styles=("clean", "blur"),
    ),
    "captioning": Shown(
        CAPTIONING,
        {name: [*_captioner(name), "--limit", "40"] for name in CAPTIONERS},
        size=100,
        pictures="scenes",
        styles=("clean", "blur"),
    ),
}


def run_shown(folder: Path, name: str, run: str) -> str:
    """Adapt to the pictures of a task. Returns the lines that its script prints."""
    shown = SHOWN[name]
    datasets = [f"{shown.task.lists}:{style}" for style in shown.styles]
    data = ["--data", str(folder / shown.pictures), "--datasets", *datasets, "--workers", "0"]
    return run_script(shown.task.script, [*data, *shown.runs[run], "--output", str(folder / name / run)])


def write_page(folder: Path, name: str) -> str:
    """Write the page of a task's runs. Returns where it is."""
    runs = [str(folder / name / run) for run in SHOWN[name].runs]
    return run_script("rlcf.report", [*runs, "--output", str(folder / f"{name}.html")])


def draw(folder: Path, name: str) -> str:
    """Draw the examples of a task. Returns where they are."""
    file = folder / f"{name}.png"
    PICTURES[name](folder).save(file)
    return f"picture: {file}\n"


def show(folder: Path, names: list[str]) -> None:
    """Run tasks of the demo, and print their tables. Goes on where it was stopped."""
    worlds = {(style, SHOWN[name].pictures): SHOWN[name] for name in names for style in SHOWN[name].styles}
    with two_at_a_time() as pool:
        written = [
            pool.submit(shown.task.write, folder / pictures, style, shown.size, TEST_SEED)
            for (style, pictures), shown in worlds.items()
        ]
        for one in written:
            one.result()
        runs = [(run, pool.submit(run_shown, folder, name, run)) for name in names for run in SHOWN[name].runs]
        for run, done in runs:
            print("".join(f"{run}: {line}\n" for line in done.result().splitlines()), end="", flush=True)
        parts = [pool.submit(write_page, folder, name) for name in names]
        parts += [pool.submit(draw, folder, name) for name in names if name in PICTURES]
        tables = "\n\n".join(f"## {TABLES[name][0]}\n\n{TABLES[name][1](folder / name)}" for name in names) + "\n"
        write_atomically(folder / "results.md", tables)
        print(f"\n{tables}")
        for part in parts:
            print(part.result(), end="")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("task", nargs="?", choices=("all", *SHOWN), default="all")
    args = parser.parse_args()
    show(args.folder, list(SHOWN) if args.task == "all" else [args.task])
