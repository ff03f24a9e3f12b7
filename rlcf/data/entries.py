"""What the catalogue tells of a dataset or a weight file, and where its files lie on a machine."""

import os
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CAPTION_ROOTS = ("", "dataset")
"""Folders below --data that may hold the folders of datasets with captions."""
IMAGE_ROOTS = ("", "dataset/tta_data", "dataset/finegrained-dataset", "tta_data", "finegrained-dataset")
"""Folders below --data that may hold the folders of classification's datasets."""


@dataclass(frozen=True)
class Download:
    """A file on a server.

    urls: addresses of the same file, the best first. to: where it goes, below the entry's home; of an archive, the
    folder that its content goes to. digest: "sha256:..." or "md5:..." as published, None where none is known.
    size: bytes, None where unknown. unpack: it is a tar or zip archive. inner: the part of the archive that is wanted,
    a folder or an archive in it; "" for all of it.
    """

    urls: tuple[str, ...]
    to: str
    digest: str | None = None
    size: int | None = None
    unpack: bool = False
    inner: str = ""

    @property
    def name(self) -> str:
        """The file's name on the server; of an archive on Google Drive, which tells none, that of its target."""
        name = self.urls[0].partition("?")[0].rpartition("/")[2]
        return name if "." in name else f"{self.to.rpartition('/')[2]}.zip"


def drive(file: str) -> tuple[str, ...]:
    """The address of a file on Google Drive."""
    return (f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t",)


def hugging_face(repository: str, file: str) -> tuple[str, ...]:
    """The address of a file on Hugging Face."""
    return (f"https://huggingface.co/{repository}/resolve/main/{file}",)


@dataclass(frozen=True)
class Expected:
    """How much a dataset holds. None where it is not known or not fixed.

    images: test images. classes: of a dataset of labelled images. each: images of every class.
    captions: of the list.
    """

    images: int
    classes: int | None = None
    each: int | None = None
    captions: int | None = None


@dataclass(frozen=True)
class Entry:
    """A dataset, a list, or a weight file.

    name: as `--datasets`, `--student` or `rlcf-data` take it. kind: "class folders", "split", "aircraft", "captions",
    "nocaps", "clip", or "files". title: what people call it. use: what the project needs it for. licence, page: of its
    publisher. home: where a download goes, below --data. roots: folders below --data in which it may lie. folders: its
    folder below a root, as the method's authors and CoOp's authors name it. files: what is in the folder when it is
    there, any one of a nested tuple. images: folder in it from which a split's paths start. about_bytes: size of all of
    it, where it is not exact. steps: what a person does by hand. by_hand: what is in the folder when that was done,
    beside the files. dead: addresses that no longer answer.
    """

    name: str
    kind: str
    title: str
    use: str
    licence: str
    page: str
    folders: tuple[str, ...]
    home: str
    roots: tuple[str, ...] = ("",)
    files: tuple[str | tuple[str, ...], ...] = ()
    images: str = ""
    expected: Expected | None = None
    downloads: tuple[Download, ...] = ()
    about_bytes: int | None = None
    steps: tuple[str, ...] = ()
    by_hand: str = ""
    dead: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """The folder below --data into which the entry's own folder goes."""
        return self.home.removesuffix(self.folders[0])

    @property
    def bytes(self) -> int | None:
        """The size of all of it, exact or about; None where it is not known."""
        sizes = [download.size for download in self.downloads]
        if self.about_bytes is None and sizes and None not in sizes:
            return sum(size for size in sizes if size is not None)
        return self.about_bytes or (sum(size or 0 for size in sizes) or None)

    @property
    def verified(self) -> str:
        """How a download is verified: "sha256", "md5", "sha256 or md5, not all", or "no checksum known"."""
        kinds = [download.digest.partition(":")[0] for download in self.downloads if download.digest]
        if not kinds:
            return "no checksum known"
        return "/".join(sorted(set(kinds))) + ("" if len(kinds) == len(self.downloads) else ", not of every file")


@dataclass(frozen=True)
class Machine:
    """The folders of this machine. data: as --data; clip_root: as --clip-root."""

    data: Path
    clip_root: Path

    @classmethod
    def of(cls, data: str | None = None, clip_root: str | None = None) -> "Machine":
        """data: $RLCF_ROOT or the working folder where not given; clip_root: $CLIP_ROOT or DATA/pretrained/clip."""
        root = Path(data or os.environ.get("RLCF_ROOT") or ".").expanduser()
        clips = clip_root or os.environ.get("CLIP_ROOT") or root / "pretrained" / "clip"
        return cls(root, Path(clips).expanduser())

    def places(self, entry: Entry) -> list[Path]:
        """The folders, or for kind "clip" the files, that may be the entry, in the order in which they are tried."""
        if entry.kind == "clip":
            return [self.clip_root / entry.folders[0]]
        return list(dict.fromkeys(self.data / root / folder for root in entry.roots for folder in entry.folders))

    def locate(self, entry: Entry) -> Path | None:
        """Where the entry is: the first of its places that holds its files; None when there is none."""
        return next((place for place in self.places(entry) if is_there(entry, place)), None)

    def home(self, entry: Entry, siblings: tuple[Entry, ...] = ()) -> Path:
        """Where a download of the entry goes.

        siblings: entries that belong into the same folder; where one of them is already, the entry goes beside it.
        """
        if entry.kind == "clip":
            return self.clip_root
        for root in entry.roots:
            if any((self.data / root / other.folders[0]).is_dir() for other in siblings):
                return self.data / root / entry.folders[0]
        return self.data / entry.home

    @cached_property
    def flags(self) -> str:
        """The flags that name this machine's folders, as a command is told."""
        told = f" --data {shlex.quote(str(self.data.absolute()))}"
        usual = self.data / "pretrained" / "clip"
        if self.clip_root.absolute() != usual.absolute():
            told += f" --clip-root {shlex.quote(str(self.clip_root.absolute()))}"
        return told


def is_there(entry: Entry, place: Path) -> bool:
    """True for a place that looks like the entry. It is a quick look: nothing is counted."""
    if entry.kind == "clip":
        return place.is_file()
    if not place.is_dir():
        return False
    if entry.kind == "class folders":
        return has_class_folders(place)
    return all(
        any((place / name).exists() for name in ((one,) if isinstance(one, str) else one)) for one in entry.files
    )


def has_class_folders(place: Path) -> bool:
    """True for a folder with a folder in it that is not hidden."""
    with os.scandir(place) as found:
        return any(not item.name.startswith(".") and item.is_dir() for item in found)
