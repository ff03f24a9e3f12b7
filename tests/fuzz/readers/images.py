"""Pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rlcf.adapt.views import Views
from rlcf.inputs.images import as_image
from rlcf.run.images import ImageLoader, refuse_or_skip
from tests.fuzz.files import Tree
from tests.fuzz.models import tiny_clip
from tests.fuzz.reader import MB, Reader


def image_seeds(folder: Path) -> dict[str, Tree]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    frames = [image, image.rotate(90, expand=False)]

    def written(kind: str, picture: Image.Image = image, **how: Any) -> Tree:
        stream = io.BytesIO()
        picture.save(stream, kind, **how)
        return {"image": stream.getvalue()}

    seeds = {kind: written(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")}
    seeds |= {"ICO": written("ICO", sizes=[(16, 16), (24, 24)]), "GIF": written("GIF", image.convert("P"))}
    seeds |= {"CMYK": written("JPEG", image.convert("CMYK")), "progressive": written("JPEG", progressive=True)}
    seeds |= {"palette": written("PNG", image.convert("P")), "alpha": written("PNG", image.convert("LA"))}
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    seeds |= {"16 bits": written("PNG", deep), "animated": written("GIF", save_all=True, append_images=frames)}
    seeds |= {
        "animated WebP": written("WEBP", save_all=True, append_images=frames),
        "LZW": written("TIFF", compression="tiff_lzw"),
    }
    return seeds


def read_picture(folder: Path, seed: str, beside: Path) -> None:
    """As a run does it, and as Python's classes do."""
    clip = tiny_clip()
    file = folder / "image"
    _, found = ImageLoader([file], [0], Views(clip.centre_view, clip.size, count=2), clip.size)[0]
    if not isinstance(found, torch.Tensor) and hasattr(found, "reason"):
        refuse_or_skip(found, False)
    as_image(str(file))


IMAGES = [Reader("images", image_seeds, read_picture, 22, memory=1500 * MB)]
