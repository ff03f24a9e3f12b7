"""What data and weights there are, what is wrong with them, and how to get them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlcf.data.catalogue import CATALOGUE, entry_of, siblings_of
from rlcf.data.catalogue.weights import CLIPS
from rlcf.data.check import Report, check, check_folder
from rlcf.data.command import own_command
from rlcf.data.entries import Entry, Machine
from rlcf.data.fetch import Patience
from rlcf.data.get import get, told_steps
from rlcf.errors import UserError, say
from rlcf.run.parser import Parser

EPILOG = """examples:
  rlcf-data list
  rlcf-data check A R --data ROOT
  rlcf-data check folder:PHOTOS --classnames names.txt --clip ViT-B/32
  rlcf-data get A V R ViT-B/16 ViT-L/14 --data ROOT
  rlcf-data convert nocaps nocaps_val_4500_captions.json

--data is the folder that holds dataset/, pretrained/ and output/: $RLCF_ROOT, or else the working folder. Without an
installation the command is python -m rlcf.data, from the project's folder, or bash scripts/rlcf-data.sh from anywhere.
docs/data.md tells what each file is and where it belongs.
"""
FOLDER = "folder:"


def parser() -> argparse.ArgumentParser:
    whole = Parser(prog="rlcf-data", description=__doc__, epilog=EPILOG)
    tasks = whole.add_subparsers(dest="task", metavar="list|check|get|convert", required=True)

    def task(name: str, text: str) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = tasks.add_parser(name, help=text, description=text)
        added.add_argument("--data", metavar="ROOT", help="folder of dataset/, pretrained/, output/ ($RLCF_ROOT, or .)")
        added.add_argument("--clip-root", metavar="DIR", help="folder of OpenAI's files (ROOT/pretrained/clip)")
        return added

    listing = task("list", "what the project knows: size, licence, place, there or missing")
    listing.add_argument("names", nargs="*", metavar="NAME", help="these alone, with address and checksum")
    checking = task("check", "look for what is missing, short, damaged, or labelled wrongly")
    checking.add_argument("names", nargs="*", metavar="NAME", help=f"of rlcf-data list (all there is), or {FOLDER}PATH")
    checking.add_argument("--classnames", metavar="FILE", help=f"the names that go with {FOLDER}PATH, as --classnames")
    checking.add_argument("--clip", metavar="NAME", help="classify a few images by this CLIP: are the labels theirs?")
    checking.add_argument("--prompt", default="a photo of a", help="words before a class name for it (a photo of a)")
    getting = task("get", "download, verify and unpack; or tell the steps where an account is needed")
    getting.add_argument("names", nargs="+", metavar="NAME", help="of rlcf-data list")
    getting.add_argument("--timeout", metavar="S", type=_seconds, default=30.0, help="seconds of silence (30)")
    getting.add_argument("--keep-archives", action="store_true", help="keep archives after they were unpacked")
    _add_conversions(task("convert", "make the tasks' files from published ones"))
    needing = tasks.add_parser("need")  # what launchers ask; no help, so that --help does not list it
    needing.add_argument("script")
    needing.add_argument("arguments", nargs=argparse.REMAINDER)
    return whole


def _add_conversions(converting: argparse.ArgumentParser) -> None:
    kinds = converting.add_subparsers(dest="kind", metavar="nocaps|karpathy|coco-results|imagenet-val", required=True)

    def kind(name: str, text: str, given: str, output: str) -> argparse.ArgumentParser:
        added = kinds.add_parser(name, help=text, description=text)
        added.add_argument("given", metavar=given)
        added.add_argument("--output", metavar="PATH", help=output)
        added.add_argument("--data", metavar="ROOT", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        added.add_argument("--clip-root", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return added

    beside = "folder of the new files (that of FILE)"
    kind("nocaps", "NoCaps' original list -> a list and references of each domain", "FILE", beside)
    kind("karpathy", "Karpathy's raw split -> the three tasks' lists, and references", "FILE", beside)
    results = kind("coco-results", "COCO's results -> clipscore's candidates", "FILE", "the new file (candidates.json)")
    results.add_argument("--list", metavar="LIST", dest="listed", help="list that tells the images of the ids")
    sorting = kind(
        "imagenet-val", "a flat folder of ImageNet's validation images -> class folders, by links", "FLAT",
        "folder of the class folders (ROOT/dataset/tta_data/ImageNet/val)",
    )  # fmt: skip
    sorting.add_argument("--labels", metavar="FILE", help="WordNet ids a line, LOC_val_solution.csv, valprep.sh, ...")
    sorting.add_argument("--hard-links", action="store_true", help="hard links in place of symbolic ones")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds above 0")
    return value


# ---- list ----


def show_size(size: int | None) -> str:
    """A size as people read it.

    >>> show_size(687_552_512), show_size(39_000), show_size(None)
    ('688 MB', '39 kB', 'not known')
    """
    if size is None:
        return "not known"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if value >= 1000:
            value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if unit == "GB" and value < 100 else f"{value:.0f} {unit}"


def goes_to(entry: Entry, machine: Machine) -> Path:
    """Where an entry that is missing is expected, and `get` puts it."""
    return machine.places(entry)[0] if entry.kind == "clip" else machine.home(entry, siblings_of(entry))


def list_all(machine: Machine) -> None:
    """Prints a table of the catalogue."""
    rows = []
    for entry in CATALOGUE.values():
        found = machine.locate(entry)
        place = found or goes_to(entry, machine)
        rows.append((entry.name, "there" if found else "missing", show_size(entry.bytes), entry.licence, str(place)))
    heads = ("name", "", "size", "licence", "place")
    rows = [(name, there, size, licence if len(licence) <= 24 else f"{licence[:21]}...", place)
            for name, there, size, licence, place in rows]  # fmt: skip
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(4)]
    for row in [heads, *rows]:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip())
    there = sum(row[1] == "there" for row in rows)
    print(f"{there} of {len(rows)} are there; {own_command()} list NAME tells more, get NAME gets it")


def describe(entry: Entry, machine: Machine) -> None:
    """Prints all that is known of an entry."""
    found = machine.locate(entry)
    expected = entry.expected
    rows = [
        ("what", entry.title), ("for", entry.use), ("licence", entry.licence), ("page", entry.page),
        ("size", show_size(entry.bytes)),
        ("is in", found) if found else ("missing; its place", goes_to(entry, machine)),
    ]  # fmt: skip
    if expected is not None:
        parts = (
            (expected.images, "images"), (expected.classes, "classes"), (expected.each, "images a class"),
            (expected.captions, "captions"),
        )  # fmt: skip
        rows.append(("expected", ", ".join(f"{count:,} {what}" for count, what in parts if count)))
    for download in entry.downloads:
        size = f", {download.size:,} bytes" if download.size else ""
        rows.append(("address", f"{download.urls[0]}{size}, {download.digest or 'no published checksum known'}"))
    rows += [("dead", address) for address in entry.dead]
    print(entry.name)
    for head, text in rows:
        print(f"  {head}: {text}")
    if entry.steps:
        print("\n".join(f"  {line}" for line in told_steps(entry, machine, own_command())))


# ---- get ----


def get_all(entries: Sequence[Entry], machine: Machine, patience: Patience, keep: bool) -> None:
    """Gets entries one after another; one that fails does not keep the others from coming.

    Ends the process with code 1 if a person has something left to do. Raises UserError if something failed.
    """
    by_hand = False
    failed: list[str] = []
    for entry in entries:
        try:
            by_hand |= not get(entry, machine, own_command(), patience, keep)
        except UserError as error:
            if len(entries) == 1:
                raise
            failed.append(entry.name)
            say(f"error: {entry.name}: {error}")
    if failed:
        told = ", ".join(failed)
        raise UserError(f"{len(failed)} of {len(entries)} did not come: {told}; the same command asks again")
    if by_hand:
        sys.exit(1)


# ---- check ----


def check_all(args: argparse.Namespace, machine: Machine) -> None:
    """Prints a report of each name. Ends the process with code 1 if something is wrong."""
    names = args.names or [entry.name for entry in CATALOGUE.values() if machine.locate(entry)]
    if args.classnames and not all(name.startswith(FOLDER) for name in names):
        raise UserError(f"--classnames goes with {FOLDER}PATH; the names of other datasets are known")
    if not names:
        places = f"{machine.data.absolute()} or {machine.clip_root.absolute()}"
        print(f"nothing is in {places}; {own_command()} list tells what there is")
        return
    classnames = Path(args.classnames).expanduser() if args.classnames else None
    jobs: list[tuple[str, Entry | None]] = [(n, None if n.startswith(FOLDER) else entry_of(n)) for n in names]
    wrong, labelled = 0, False
    for name, entry in jobs:
        if entry is None:
            place = Path(name.removeprefix(FOLDER)).expanduser()
            report = check_folder(place if place.is_dir() else machine.data / place, classnames)
        else:
            report = check(entry, machine, own_command())
        if args.clip:
            _look(report, args, machine)
        print("\n".join(report.lines()), flush=True)
        wrong += bool(report.wrong)
        labelled |= bool(report.samples)
    clips = [entry.name for entry in CLIPS if machine.locate(entry)]
    if labelled and clips and not args.clip:
        print(f"--clip {clips[0]} looks at a few images with a model, for labels of other images")
    if wrong:
        print(f"{wrong} of {len(jobs)} wrong")
        sys.exit(1)


def _look(report: Report, args: argparse.Namespace, machine: Machine) -> None:
    fits = report.samples and len(report.classnames) > max(label for _, label in report.samples)
    if not fits:
        return
    from rlcf.data.look import look

    try:
        said = look(report.samples, report.classnames, args.clip, machine.clip_root, args.prompt)
    except UserError as error:
        said = f"wrong: {error}"
    if said.startswith("wrong: "):
        report.wrong.append(said.removeprefix("wrong: "))
        report.mend.append("see that class names and folders are in the same order")
    else:
        report.right.append(said)


# ---- convert ----


def convert(args: argparse.Namespace, machine: Machine) -> None:
    """Runs a conversion, and prints what it wrote."""
    from rlcf.data import convert as made

    given = Path(args.given).expanduser()
    output = Path(args.output).expanduser() if args.output else None
    if args.kind == "imagenet-val":
        home = output or machine.home(entry_of("I"))
        labels = Path(args.labels).expanduser() if args.labels else None
        count = made.imagenet_val(given, labels, home, args.hard_links)
        print(f"{count:,} images in class folders: {home}")
        print(f"look at it with: {own_command()} check I{machine.flags}")
        return
    if args.kind == "coco-results":
        listed = Path(args.listed).expanduser() if args.listed else None
        files = [made.coco_results(given, listed, output or given.parent / "candidates.json")]
    else:
        make = made.nocaps if args.kind == "nocaps" else made.karpathy
        files = make(given, output or given.parent)
    for file in files:
        print(file)


def main(argv: Sequence[str] | None = None) -> None:
    args: Any = parser().parse_args(argv)
    if args.task == "need":
        from rlcf.data.need import need

        need(args.script, args.arguments, own_command())
        return
    machine = Machine.of(args.data, args.clip_root)
    if args.task in ("list", "check") and not machine.data.is_dir():
        raise UserError(f"there is no folder {machine.data}; give --data, or set RLCF_ROOT")
    if args.task == "list":
        if not args.names:
            list_all(machine)
        for entry in [entry_of(name) for name in args.names]:
            describe(entry, machine)
    elif args.task == "check":
        check_all(args, machine)
    elif args.task == "get":
        get_all([entry_of(name) for name in args.names], machine, Patience(timeout=args.timeout), args.keep_archives)
    else:
        convert(args, machine)
