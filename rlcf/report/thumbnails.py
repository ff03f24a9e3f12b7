"""Small pictures of the samples, made once, for the page to hold."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from rlcf.errors import UserError
from rlcf.progress import progress_bar
from rlcf.run.images import read_image

SIDE = 96
"""Pixels of a thumbnail's longer side. A smaller image stays as it is."""
QUALITY = 60
"""Of the WebP file: about 2 kB for a photograph."""


@dataclass(frozen=True)
class Thumbnails:
    """made: image file -> its thumbnail, base64 of a WebP file; missing: files that could not be read; left_out: number
    of those that were not asked for, since the page holds no more."""

    made: dict[Path, str]
    missing: list[Path]
    left_out: int


def make_thumbnails(files: Sequence[Path], most: int) -> Thumbnails:
    """Thumbnails of the first `most` files, each once. files: the most telling first."""
    wanted = list(dict.fromkeys(files))
    asked, left_out = wanted[:most], len(wanted[most:])
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding and encoding leave Python's lock
        made = pool.map(_thumbnail, asked)
        found = list(progress_bar(made, desc="thumbnails", total=len(asked), unit=" images", disable=not asked))
    pairs = list(zip(asked, found, strict=True))
    pictures = {file: picture for file, picture in pairs if picture is not None}
    return Thumbnails(pictures, [file for file, picture in pairs if picture is None], left_out)


def _thumbnail(file: Path) -> str | None:
    try:
        image = read_image(file, draft=(SIDE, SIDE))
    except (UserError, OSError):
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(stream.getvalue()).decode()
