"""Gets entries of the catalogue: downloads, verifies and unpacks them, or tells the steps that a person takes."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rlcf.data.catalogue import siblings_of
from rlcf.data.catalogue.captions import NOCAPS_FILE
from rlcf.data.entries import Download, Entry, Machine, is_there
from rlcf.data.fetch import USUAL, Patience, digest_of_file, fetch
from rlcf.data.unpack import content, put, unpack
from rlcf.errors import UserError, say
from rlcf.failures import not_written
from rlcf.inputs.json_files import read_json
from rlcf.progress import progress_bar

AT_ONCE = 8
"""Small images that are downloaded at once."""


def get(entry: Entry, machine: Machine, command: str, patience: Patience = USUAL, keep: bool = False) -> bool:
    """Gets what is missing of an entry, and prints what a person has to do. Returns True if nothing is left to do.

    command: how this program is called. keep: archives are kept after they were unpacked.
    Raises UserError as `fetch` and `unpack`.
    """
    home = _home(entry, machine)
    try:
        for download in entry.downloads:
            _get(entry, download, home, patience, keep)
        if entry.kind == "nocaps":
            _nocaps_images(home, patience)
    except UserError:
        if entry.steps or entry.dead:
            say("\n".join(told_steps(entry, machine, command)))
        raise
    found = machine.locate(entry)
    by_hand = bool(entry.steps) and not _complete(entry, machine)
    if by_hand or not entry.downloads:
        print("\n".join(told_steps(entry, machine, command)))
        return not by_hand and found is not None
    print(f"{entry.name} is in {found or home}; look at it with: {command} check {entry.name}{machine.flags}")
    return True


def told_steps(entry: Entry, machine: Machine, command: str) -> list[str]:
    """The lines that tell a person how to get an entry."""
    home = _home(entry, machine)
    lines = [f"{entry.name} ({entry.title}) by hand, from {entry.page}; it belongs into {home}"]
    for number, step in enumerate(entry.steps, start=1):
        told = step.replace("{command}", command).replace("{flags}", machine.flags).replace("{home}", str(home))
        lines.append(f"  {number}. {told}")
    lines += [f"  dead: {address}" for address in entry.dead]
    return lines


def _home(entry: Entry, machine: Machine) -> Path:
    """Where the entry is, or goes."""
    found = machine.locate(entry)
    if found is not None:
        return found.parent if entry.kind == "clip" else found
    return machine.home(entry, siblings_of(entry))


def _complete(entry: Entry, machine: Machine) -> bool:
    """True where a person's steps seem to be done, or the downloads were all there is."""
    found = machine.locate(entry)
    return found is not None and (found / entry.by_hand).exists()


def _get(entry: Entry, download: Download, home: Path, patience: Patience, keep: bool) -> None:
    """One download, unless it is there."""
    target = home / download.to
    if download.unpack:
        if not _unpacked(entry, download, target):
            archive = home.parent / download.name
            if not _is_it(archive, download):
                fetch(download.urls, archive, download.digest, download.size, patience, entry.name)
            install(archive, target, download.inner)
            if not keep:
                archive.unlink()
    elif not target.is_file():
        fetch(download.urls, target, download.digest, download.size, patience, download.to)


def _is_it(archive: Path, download: Download) -> bool:
    """True for an archive that somebody has put in its place already."""
    if not archive.is_file():
        return False
    if download.digest is None:
        return True
    return digest_of_file(archive, download.digest.partition(":")[0]) == download.digest


def _unpacked(entry: Entry, download: Download, target: Path) -> bool:
    """True where the content of an archive seems to be there."""
    if not target.is_dir() or not any(target.iterdir()):
        return False
    if download.to:
        return True
    if entry.images:
        return (target / entry.images).is_dir()
    return is_there(entry, target)


def install(archive: Path, target: Path, inner: str = "") -> None:
    """Unpacks an archive beside `target` and moves its content there. Raises UserError as `unpack`."""
    beside = target.parent / f".{target.name}.unpacking"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
        beside.mkdir()
        try:
            unpack(archive, beside, f"unpacking {archive.name}")
            kept = put(content(beside, inner), target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise UserError(not_written(error.filename or target, error)) from error
    if kept:
        shown = ", ".join(kept[:3]) + (f" and {len(kept) - 3} more" if len(kept) > 3 else "")
        say(f"{target} has {shown} already; these were left as they are")


def _nocaps_images(home: Path, patience: Patience) -> None:
    """The images that NoCaps' list names, each from its own address in it, into val/."""
    listed = next((file for file in (home / NOCAPS_FILE, home / "annotations" / NOCAPS_FILE) if file.is_file()), None)
    if listed is None:
        return
    try:
        rows = read_json(listed)["images"]
        images = {str(image["file_name"]): str(image["coco_url"]) for image in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{listed} is no list of NoCaps; delete it and get it again") from error
    strange = next((name for name in images if Path(name).name != name or name.startswith(".")), None)
    if strange is not None:
        raise UserError(f"{listed} names an image {strange}, which is no plain file name")
    missing = {name: url for name, url in images.items() if not (home / "val" / name).is_file()}

    def one(item: tuple[str, str]) -> str | None:
        name, url = item
        try:
            fetch((url,), home / "val" / name, patience=patience, quiet=True)
        except UserError as error:
            return str(error)
        return None

    _all_of(one, missing, "images")


def _all_of(work: Callable[[tuple[str, str]], str | None], items: dict[str, str], label: str) -> None:
    """Downloads several files at once. Raises UserError telling how many failed, and the first reason."""
    if not items:
        return
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        told = progress_bar(pool.map(work, items.items()), desc=label, total=len(items), unit=" files")
        failed = [why for why in told if why]
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        raise UserError(f"{len(failed)} of {len(items)} images did not come; the same command asks again: {failed[0]}")
