"""The files of a folder, as the datasets see them."""

from pathlib import Path

from PIL import Image

from rlcf.inputs import folders
from rlcf.inputs.folders import LeftOut


def class_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    return folders.class_folders(root, LeftOut())


def images_below(folder: Path) -> list[Path]:
    """The image files below a folder, sorted, without hidden ones."""
    return folders.scan(folder, LeftOut())


def images_in(folder: Path) -> list[Path]:
    """The image files in a folder itself, sorted, without hidden ones."""
    names = [entry.name for entry in folders.entries(folder) if not folders.is_hidden(entry.name) and entry.is_file()]
    return [folder / name for name in names if Path(name).suffix.lower() in folders.image_suffixes()]


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
