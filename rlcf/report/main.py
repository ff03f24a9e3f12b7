"""Writes a page to look at runs with: their settings, metrics and figures, and a gallery of their samples.

Several runs of one task are compared on the samples that they share. The page is one HTML file that holds all it shows.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from rlcf.errors import UserError
from rlcf.inputs.places import expanded
from rlcf.report.page import make_page
from rlcf.report.parts import Part, comparisons_of, parts_of
from rlcf.report.runs import read_runs
from rlcf.report.tables import as_csv, as_latex, as_markdown
from rlcf.report.thumbnails import Thumbnails
from rlcf.run.files import write_atomically
from rlcf.run.parser import Parser

EPILOG = """examples:
  python -m rlcf.report output/RUN
  python -m rlcf.report output/RUN output/BASELINE --output compared.html
  python -m rlcf.report output/RUN --no-page --latex table.tex --csv numbers.csv
"""
MOST_PICTURES = 12_000
"""Thumbnails that a page holds: 30 to 40 MB of photographs."""


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="rlcf-report", description=__doc__, epilog=EPILOG)
    parser.add_argument("runs", nargs="+", type=path, metavar="RUN", help="run folders of one task")
    parser.add_argument(
        "--output",
        type=path,
        metavar="FILE",
        help="the page (default: report.html in the run's folder; of several runs in the folder that holds them)",
    )
    parser.add_argument("--no-page", action="store_true", help="write tables alone")
    parser.add_argument(
        "--images",
        type=path,
        metavar="FOLDER",
        help="where the images are now, if they were moved: the folder that the samples' ids start from",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=MOST_PICTURES,
        metavar="N",
        help="thumbnails that the page holds at most, about 3 kB each, those of samples that changed first (default: "
        f"{MOST_PICTURES})",
    )
    for form, (called, _) in TABLES.items():
        parser.add_argument(f"--{form}", type=path, metavar="FILE", help=f"write the metrics as {called}")
    given = parser.parse_args(argv)
    if given.pictures < 0:
        raise UserError(f"--pictures: {given.pictures} must be at least 0")
    if given.images is not None and not given.images.is_dir():
        raise UserError(f"--images: no folder {given.images}")
    if given.no_page and not any(getattr(given, form) for form in TABLES):
        raise UserError("--no-page leaves nothing to write; give --csv, --markdown or --latex")
    runs = read_runs(given.runs)
    parts = parts_of(runs)
    for run in runs:
        if not run.finished:
            print(f"{run.folder} is not finished: the report is of its samples so far")
    for form, (_, write) in TABLES.items():
        file = getattr(given, form)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, write(parts))
            print(f"{form}: {file}")
    if given.no_page:
        return
    file = given.output or default_place(given.runs)
    if file.is_dir():
        file /= "report.html"
    html, thumbnails = make_page(parts, comparisons_of(parts) if len(runs) > 1 else [], given.pictures, given.images)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, html)
    unknown = next((part.dataset.folder for part in parts if part.dataset.images is None), None)
    if unknown is not None and given.images is None:
        print(f"nothing in {unknown} tells where its images are: give --images their folder to see them")
    for line in told_of(thumbnails, given.images):
        print(line)
    print(f"report: {file} ({len(html.encode()) / 1e6:.1f} MB)")


def path(text: str) -> Path:
    """The path that a flag gives."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a path")
    return Path(expanded(text))


def default_place(folders: Sequence[Path]) -> Path:
    """A run's page lies in its folder, that of several in the folder that holds them all."""
    if len(folders) == 1:
        return folders[0] / "report.html"
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders])) / "report.html"


def told_of(thumbnails: Thumbnails, moved: Path | None) -> list[str]:
    """What a user should know of the page's pictures."""
    told, missing = [], thumbnails.missing
    if missing:
        asked = len(thumbnails.made) + len(missing)
        where = "that holds them now" if moved is None else "that the ids of the samples start from"
        told.append(
            f"{len(missing):,} of {asked:,} images could not be read, such as {missing[0]}: the gallery shows these "
            f"samples without a picture; if the images were moved, give --images the folder {where}"
        )
    if thumbnails.left_out:
        told.append(f"{thumbnails.left_out:,} samples are shown without a picture; --pictures N makes room for more")
    return told


TABLES: dict[str, tuple[str, Callable[[Sequence[Part]], str]]] = {
    "csv": ("CSV, a line a run, dataset and metric", as_csv),
    "markdown": ("a Markdown table", as_markdown),
    "latex": ("a LaTeX table (booktabs)", as_latex),
}
"""A flag -> what it writes."""
