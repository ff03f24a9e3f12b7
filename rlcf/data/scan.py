"""The files of a folder, as the datasets see them."""

import os
from functools import cache
from pathlib import Path

from PIL import Image


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of the image files that Pillow opens."""
    Image.init()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def class_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    with os.scandir(root) as found:
        return sorted(item.name for item in found if not item.name.startswith(".") and item.is_dir())


def images_below(folder: Path) -> list[Path]:
    """The image files below a folder, sorted, without hidden ones."""
    images = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        wanted = (name for name in sorted(files) if not name.startswith("."))
        images += [Path(parent) / name for name in wanted if Path(name).suffix.lower() in suffixes()]
    return images


def images_in(folder: Path) -> list[Path]:
    """The image files in a folder itself, sorted, without hidden ones."""
    with os.scandir(folder) as found:
        names = sorted(item.name for item in found if not item.name.startswith(".") and item.is_file())
    return [folder / name for name in names if Path(name).suffix.lower() in suffixes()]


def unreadable(images: list[Path], sample: int = 64) -> list[Path]:
    """Image files that are empty, and of `sample` of them, spread over the list, those with another kind of content."""
    empty = [file for file in images if not file.stat().st_size]
    step = max(1, len(images) // sample)
    damaged = []
    for file in images[::step]:
        try:
            with Image.open(file) as image:
                image.verify()
        except Exception:  # Pillow raises many kinds
            damaged.append(file)
    return sorted({*empty, *damaged})
