"""The pixels of a picture as people see them: upright, in 8 bits, on white where it is transparent."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

ORIENTATION = 0x0112
"""The EXIF tag of how a picture has to be turned, 1 to 8."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what makes the picture upright."""
STRIP = 2**20
"""Pixels of a strip of a picture that is converted strip by strip."""
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF. A photometric interpretation of 0: nought is white. A sample format of 1 is unsigned, 2 is signed."""


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a picture, 1 where it has none or a damaged one."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF raises many kinds of errors; the picture is none the worse for it
        return 1
    return found if found in TURNS else 1


def as_seen(image: Image.Image) -> Image.Image:
    """A picture in RGB as people see it.

    It is turned as its EXIF data tell. 16 bits, whole numbers of 32 bits and floats are scaled to 8 bits. Transparent
    parts are white. Raises ValueError for numbers that are not finite.
    """
    turn = TURNS.get(orientation(image))
    plain = image.mode == "RGB" and not image.has_transparency_data
    rgb = image if plain else _rgb(image)
    if turn is not None:
        return rgb.transpose(turn)
    return rgb.copy() if plain else rgb


def _rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB; it lies on white where it is transparent."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey(image)
    if image.mode == "LAB":
        return _from_lab(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    if image.mode == "La":  # Pillow turns premultiplied grey into grey with alpha alone
        image = image.convert("LA")
    return _by_strips(image, _on_white)


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """A picture in RGB whose strips are converted one after another, so that little more than it is in memory."""
    rgb = Image.new("RGB", image.size)
    for strip, top in _strips(image):
        rgb.paste(convert(strip), (0, top))
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[Image.Image, int]]:
    """Strips of a picture, each with its first row."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height))), top


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """A picture of one number a pixel that is no byte, as RGB."""
    unsigned = _tag(image, BITS_PER_SAMPLE) == 32 and _tag(image, SAMPLE_FORMAT) == 1
    scale = 255.0 / _white(image, max(float(_numbers(strip, unsigned).max()) for strip, _ in _strips(image)))
    clear = image.info.get("transparency")
    negative = image.mode != "F" and _tag(image, PHOTOMETRIC) == 0  # Pillow sees to it in pictures of 8 bits alone

    def convert(strip: Image.Image) -> Image.Image:
        numbers = _numbers(strip, unsigned)
        bytes_ = np.rint(np.clip(numbers * scale, 0, 255)).astype(np.uint8)
        bytes_ = 255 - bytes_ if negative else bytes_
        if isinstance(clear, int):
            bytes_[numbers == clear] = 255
        return Image.fromarray(bytes_).convert("RGB")

    return _by_strips(image, convert)


def _numbers(image: Image.Image, unsigned: bool) -> np.ndarray:
    """The numbers of a picture, float64. unsigned: True where Pillow has read unsigned ones as if they were signed."""
    numbers = np.asarray(image)
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError("some of its numbers are NaN or infinite")
    numbers = numbers.astype(np.float64)
    return np.where(numbers < 0, numbers + 2.0**32, numbers) if unsigned else numbers


def _white(image: Image.Image, peak: float) -> float:
    """The number that means white. peak: the largest one of the picture.

    16 bits tell it themselves. Floats are in 0..1, in 0..255 or in 0..65535, and a little beyond after resampling.
    Whole numbers of 32 bits fill 8, 16, 31 or 32 bits. Where all would be black, the largest number is white.
    """
    bits = _tag(image, BITS_PER_SAMPLE)
    if image.mode == "F":
        return next((white for white in (1.0, 255.0, 65535.0) if peak <= 2 * white), peak)
    if image.mode != "I":
        return 2.0**bits - 1 if bits and bits < 16 else 65535.0  # cameras and microscopes write 10 or 12 bits
    if bits and bits <= 16:  # Pillow reads signed numbers of 16 bits into 32
        return 2.0 ** (bits - 1) - 1
    if image.format in ("PNG", "PPM"):  # of 16 bits, which some versions of Pillow read into 32
        return 65535.0
    white = next((2.0**size - 1 for size in (8, 16, 31, 32) if peak <= 2.0**size - 1), peak)
    return white if peak >= white / 255 else max(peak, 1.0)


def _tag(image: Image.Image, tag: int) -> int | None:
    """A tag of a TIFF file, its first value where it has several; None for another file."""
    tags: Any = getattr(image, "tag_v2", None)
    value = tags.get(tag) if tags is not None else None
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _from_lab(image: Image.Image) -> Image.Image:
    """A picture in CIE L*a*b* as RGB, which Pillow converts by colour profiles alone."""
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    found = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
    assert found is not None  # None is for a picture that is changed in place
    return found
