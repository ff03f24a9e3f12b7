"""Class names of the ImageNet family and of folders of images."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from rlcf.errors import UserError
from rlcf.start import importing


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet's classes. They are sorted; class i has the i-th."""
    return _synsets("imagenet_synsets.txt")


@cache
def subset_wnids(subset: str) -> tuple[str, ...]:
    """The 200 WordNet ids of a subset's classes, sorted; class i has the i-th. subset: "a" or "r" (ImageNet-A, -R)."""
    return tuple(sorted(_synsets(f"imagenet_{subset}_synsets.txt")))


def names_of(wnids: Sequence[str]) -> list[str]:
    """The English names of WordNet ids of ImageNet, as CLIP's authors chose them."""
    with importing():  # of torch with it, which only ImageNet's names need
        from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    index = {wnid: i for i, wnid in enumerate(imagenet_wnids())}
    return [IMAGENET_CLASSNAMES[index[wnid]] for wnid in wnids]


def read_classnames(file: Path, folders: Sequence[str]) -> list[str]:
    """Reads the names of classes from a text file, one a line.

    folders: the class folders, sorted; line i is the name of the i-th.
    Raises UserError for a file that is missing, no text, or has another number of names than there are folders.
    """
    names = read_lines(file)
    if len(names) != len(folders):
        raise UserError(
            f"{file} holds {len(names)} class names but there are {len(folders)} class folders; write one name a line, "
            "in the sorted order of the folders"
        )
    return names


def read_lines(file: Path) -> list[str]:
    """The lines of a text file without blank ones. Raises UserError for a file that is missing or not UTF-8 text."""
    if not file.is_file():
        raise UserError(f"there is no {file}; it should hold one entry a line")
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no text file in UTF-8") from error


def _synsets(file: str) -> tuple[str, ...]:
    """The WordNet ids in a file of timm."""
    found = find_spec("timm")  # without importing it, which brings torch
    assert found is not None and found.origin is not None
    return tuple((Path(found.origin).parent / "data" / "_info" / file).read_text().split())
