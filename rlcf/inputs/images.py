"""The one reader of pictures: files, rows of stored datasets, PIL images and tensors, all as RGB."""

import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlcf.adapt.augment import to_image
from rlcf.adapt.views import LEAST_AREA
from rlcf.errors import UserError
from rlcf.failures import OUT_OF_FILES
from rlcf.inputs.pixels import as_seen, orientation
from rlcf.inputs.sources import Source, StoredImage
from rlcf.run.files import is_special

NOT_DECODED = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""The exceptions that PIL raises for an image that it cannot decode."""
NO_IMAGE = "cannot identify image file"
HEIC = {b"ftyp" + kind for kind in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")}
"""Bytes 4 to 12 of a HEIC file."""
MOST_PIXELS = 89_478_485
"""Pixels of the largest image that is read, Pillow's own limit (256 MB in RGB). Pillow warns from there on."""
MOST_RATIO = 100
"""The most that the longer side of an image may be of the shorter one. A view's shorter side has the model's pixels, so
that the longer one of an image of one row would have millions before it is cut."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `check_sides` refuses such an image


UNBOUNDED = {
    "eps": "PostScript is a program; convert it",
    "iptc": "it wraps a file of any other kind; take that out",
    "fits_gzip": "it is packed without a bound; unpack it",
}
"""Pillow's name of a decoder -> why it is not let loose: it runs programs, or takes memory that no side tells."""


def check_decoder(image: Image.Image) -> None:
    """Raises ValueError for an image that has yet to be decoded by one of `UNBOUNDED`."""
    for decoder, *_ in getattr(image, "tile", ()):
        if decoder in UNBOUNDED:
            raise ValueError(UNBOUNDED[decoder])


def check_sides(width: int, height: int) -> None:
    """Raises ValueError for an image of more than `MOST_PIXELS`, or narrower than `MOST_RATIO`. Sides in pixels."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}; make it smaller")
    if max(width, height) > MOST_RATIO * min(width, height):
        raise ValueError(f"of {width} x {height} pixels one side is over {MOST_RATIO} times the other; cut it")


def read_image(source: Source, draft: tuple[int, int] | None = None, published: bool = False) -> Image.Image:
    """Reads a picture as RGB, of an animation its first frame.

    Raises UserError for a file that is missing, damaged or no regular file, and for an image that is too large or too
    narrow (`check_sides`).

    draft: (H, W) of the views that will be cut from the image, pixels. With it a JPEG that is much larger than the
    views need is decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time; the views' pixels change a little.
    published: read it as the published code reads its datasets, by PIL's conversion to RGB alone, in place of
    `as_seen`.
    """
    try:
        with Image.open(_opened(source)) as image:
            check_sides(*image.size)
            check_decoder(image)
            if draft:
                size = large_enough(draft)
                image.draft("RGB", size[::-1] if not published and orientation(image) > 4 else size)
            image.load()
            check_sides(*image.size)  # that of an icon is known only now
            return image.convert("RGB") if published else as_seen(image)
    except NOT_DECODED as error:
        if getattr(error, "errno", None) in OUT_OF_FILES:  # says nothing of this image
            raise
        reason = getattr(error, "strerror", None) or str(error).replace(f" '{source}'", "") or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "it is HEIC, as telephones write it; convert it to JPEG" if _is_heic(source) else NO_IMAGE
        raise UserError(f"{source} cannot be read as an image ({reason})") from error


def _is_heic(source: Source) -> bool:
    """True for a picture in the format of iPhones, which Pillow does not read."""
    if isinstance(source, StoredImage):
        head = source.rows.picture(source.row)[:12]
    else:
        with source.open("rb") as file:
            head = file.read(12)
    return head[4:12] in HEIC


def _opened(source: Source) -> Any:
    """What PIL opens: the file, or the bytes of a row. Raises ValueError for what must not be opened."""
    if isinstance(source, StoredImage):
        try:
            return io.BytesIO(source.rows.picture(source.row))
        except (OSError, MemoryError):
            raise
        except Exception as error:  # damaged files raise many kinds
            raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from error
    if is_special(source):
        raise ValueError("it is a pipe, a device or a socket")
    return source


def as_image(image: "Image.Image | str | Path | Tensor") -> Image.Image:
    """Converts an image to a PIL image in RGB.

    image: a PIL image, the path of a file, or a tensor (3, H, W), uint8 in 0..255 or float in [0, 1]. PIL images and
    files are read `as_seen`. Raises UserError for a file or PIL image that cannot be read, for a tensor of another
    shape or type, and for an image that is too large or too narrow (`check_sides`).
    """
    if isinstance(image, str | Path):
        return read_image(Path(image).expanduser())
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UserError(f"an image must have pixels; this one has the size {image.size}")
        try:
            check_sides(*image.size)
            check_decoder(image)
            image.load()
            return as_seen(image)
        except NOT_DECODED as error:  # PIL reads an opened file when its pixels are asked for
            raise UserError(f"a PIL image cannot be read ({error})") from error
    if not isinstance(image, Tensor):
        made = "; PIL's Image.fromarray makes an image of it" if isinstance(image, np.ndarray) else ""
        raise UserError(f"an image must be a PIL image, a file or a tensor, not of type {type(image).__name__}{made}")
    if image.dim() != 3 or len(image) != 3 or not image.numel():
        raise UserError(f"an image tensor must be (3, H, W), not {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UserError(f"an image tensor must be uint8 in 0..255 or float in [0, 1], not {image.dtype}")
    try:
        check_sides(image.shape[2], image.shape[1])
    except ValueError as error:
        raise UserError(f"an image tensor cannot be read ({error})") from error
    if not image.isfinite().all():
        raise UserError("an image tensor has numbers that are NaN or infinite; give numbers in [0, 1]")
    pixels = image if image.dtype == torch.uint8 else (image * 255.0).round().clamp(0, 255).to(torch.uint8)
    return to_image(pixels.cpu())


def large_enough(size: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of an image whose smallest crop has the pixels of a view.

    That crop covers 8% of the image, so its sides are about sqrt(0.08) of the image's: an image for views of 224 pixels
    must have 792. size: (H, W) of the views, pixels. Returns (width, height), pixels.
    """
    height, width = (math.ceil(side / math.sqrt(LEAST_AREA["crop"])) for side in size)
    return width, height
