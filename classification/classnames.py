"""Class names of the ImageNet family."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

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


def _synsets(file: str) -> tuple[str, ...]:
    """The WordNet ids in a file of timm."""
    found = find_spec("timm")  # without importing it, which brings torch
    assert found is not None and found.origin is not None
    return tuple((Path(found.origin).parent / "data" / "_info" / file).read_text(encoding="utf-8").split())
