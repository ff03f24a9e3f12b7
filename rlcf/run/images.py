"""Reads image files in worker processes: one by one for adaptation, or in batches for features."""

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlcf.adapt.augment import to_image
from rlcf.adapt.groups import Unreadable
from rlcf.adapt.views import LEAST_AREA, PlannedViews, Views
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError
from rlcf.failures import OUT_OF_FILES
from rlcf.progress import progress_bar
from rlcf.run.files import is_special
from rlcf.run.folder import logger

NOT_DECODED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""The exceptions that PIL raises for an image that it cannot decode."""
MOST_PIXELS = 89_478_485
"""Pixels of the largest image that is read, Pillow's own limit (256 MB in RGB). Pillow warns from there on."""
MOST_RATIO = 100
"""The most that the longer side of an image may be of the shorter one. A view's shorter side has the model's pixels, so
that the longer one of an image of one row would have millions before it is cut."""

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `check_sides` refuses such an image


def check_sides(width: int, height: int) -> None:
    """Raises ValueError for an image of more than `MOST_PIXELS`, or narrower than `MOST_RATIO`. Sides in pixels."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}; make it smaller")
    if max(width, height) > MOST_RATIO * min(width, height):
        raise ValueError(f"of {width} x {height} pixels one side is over {MOST_RATIO} times the other; cut it")


def read_image(file: Path, draft: tuple[int, int] | None = None) -> Image.Image:
    """Reads an image file as RGB.

    Raises UserError for a file that is missing, damaged or no regular file, and for an image that is too large or too
    narrow (`check_sides`).

    draft: (H, W) of the views that will be cut from the image, pixels. With it a JPEG that is much larger than the
    views need is decoded at 1/2, 1/4 or 1/8 of its size, in a fraction of the time; the views' pixels change a little.
    """
    try:
        if is_special(file):
            raise ValueError("it is a pipe, a device or a socket")
        with Image.open(file) as image:
            check_sides(*image.size)
            if image.format == "EPS":
                raise ValueError("PostScript is a program; convert it")
            if draft:
                image.draft("RGB", large_enough(draft))
            image.load()
            check_sides(*image.size)  # that of an icon is known only now
            return image.convert("RGB")
    except NOT_DECODED as error:
        if getattr(error, "errno", None) in OUT_OF_FILES:  # says nothing of this image
            raise
        reason = getattr(error, "strerror", None) or str(error).replace(f" '{file}'", "") or type(error).__name__
        raise UserError(f"{file} cannot be read as an image ({reason})") from error


def as_image(image: "Image.Image | str | Path | Tensor") -> Image.Image:
    """Converts an image to a PIL image in RGB.

    image: a PIL image, the path of a file, or a tensor (3, H, W), uint8 in 0..255 or float in [0, 1].
    Raises UserError for a file or PIL image that cannot be read, for a tensor of another shape or type, and for an
    image that is too large or too narrow (`check_sides`).
    """
    if isinstance(image, str | Path):
        return read_image(Path(image).expanduser())
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise UserError(f"an image must have pixels; this one has the size {image.size}")
        try:
            check_sides(*image.size)
            return image.convert("RGB")
        except NOT_DECODED as error:  # PIL reads an opened file when its pixels are asked for
            raise UserError(f"a PIL image cannot be read ({error})") from error
    if not isinstance(image, Tensor):
        raise UserError(f"an image must be a PIL image, a file or a tensor, not of type {type(image).__name__}")
    if image.dim() != 3 or len(image) != 3 or not image.numel():
        raise UserError(f"an image tensor must be (3, H, W), not {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise UserError(f"an image tensor must be uint8 in 0..255 or float in [0, 1], not {image.dtype}")
    try:
        check_sides(image.shape[2], image.shape[1])
    except ValueError as error:
        raise UserError(f"an image tensor cannot be read ({error})") from error
    pixels = image if image.dtype == torch.uint8 else (image * 255.0).round().clamp(0, 255).to(torch.uint8)
    return to_image(pixels.cpu())


def large_enough(size: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of an image whose smallest crop has the pixels of a view.

    That crop covers 8% of the image, so its sides are about sqrt(0.08) of the image's: an image for views of 224 pixels
    must have 792. size: (H, W) of the views, pixels. Returns (width, height), pixels.
    """
    height, width = (math.ceil(side / math.sqrt(LEAST_AREA["crop"])) for side in size)
    return width, height


Loaded = tuple[int, Tensor | PlannedViews | Unreadable]
"""Index of an image, and its pixels, its planned views, or the reason why it cannot be read."""


@dataclass(frozen=True)
class ImageLoader(Dataset[Loaded]):
    """A dataset of transformed images. Item i is (index, image), where index is `order[i]`.

    The image is that of `files[index]` after `transform`, or an `Unreadable` for a file that cannot be read.

    files: paths of the images. order: indices into `files`, in the order in which they are read.
    transform: a function from an image and its index to a tensor or to `PlannedViews`.
    draft: (H, W) of the views, for faster decoding of large JPEGs, as in `read_image`.
    """

    files: Sequence[Path]
    order: Sequence[int]
    transform: Callable[[Image.Image, int], Tensor | PlannedViews]
    draft: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> Loaded:
        index = self.order[position]
        try:
            image = read_image(self.files[index], self.draft)
        except UserError as error:
            return index, Unreadable(str(error))
        return index, self.transform(image, index)

    def one_by_one(self, workers: int, pin_memory: bool = False) -> Iterator[Loaded]:
        """Iterates over the items in order. workers: number of processes that read them, 0 for this process.

        Raises UserError if the processes cannot be started.
        """
        workers = min(workers, len(self))
        loader = DataLoader(
            self, batch_size=None, num_workers=workers, pin_memory=pin_memory, worker_init_fn=_send_by_pipe
        )
        try:
            return iter(loader)
        except OSError as error:  # too many processes or open files, or no shared memory for their locks
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise UserError(f"{workers} processes that read images cannot start ({reason}); lower --workers") from error


def _send_by_pipe(worker: int) -> None:
    """Makes this process send tensors through its pipe.

    torch would put them into shared memory, of which a container has 64 MB, and an open file each. worker: its number.
    """
    ForkingPickler.register(Tensor, _as_array)


def _as_array(tensor: Tensor) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    """The function and the arguments that make an equal tensor, with the same order of its dimensions in memory."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    return _as_tensor, (tensor.permute(order).numpy(), np.argsort(order).tolist())


def _as_tensor(array: np.ndarray, order: list[int]) -> Tensor:
    return torch.from_numpy(array).permute(order)


def refuse_or_skip(sample: Unreadable, skip: bool) -> None:
    """Handles a file that cannot be read: logs it if `skip` is True, else raises UserError naming it."""
    if not skip:
        raise UserError(f"{sample.reason}; mend it or pass --skip-bad-images")
    logger.info("skipped: %s", sample.reason)


@torch.no_grad()
def encode_images(
    clips: Sequence[Backbone],
    files: Sequence[Path],
    workers: int = 2,
    batch_size: int = 64,
    desc: str | None = "images",
    view: Backbone | None = None,
    skip_bad: bool = False,
) -> list[Tensor]:
    """The features of image files by several models. Each file is read once.

    All models get the same view of an image, resized to each model's input, as in the published code. It is the
    evaluation view of `view`, or of the first model if `view` is None.

    workers: number of processes that read files. batch_size: images that are encoded together.
    desc: label of the progress bar, None for no bar. skip_bad: give a file that cannot be read NaN as features.
    Returns a matrix for each model, (len(files), D), unit length.
    Raises UserError naming a file that cannot be read, unless skip_bad is True.
    """
    seen_by = view or clips[0]
    centre = Views(seen_by.centre_view, seen_by.size, count=1)
    loader = ImageLoader(files, range(len(files)), centre).one_by_one(workers)
    features: list[list[Tensor]] = [[] for _ in clips]
    batch: list[Tensor] = []
    bad: list[int] = []
    for index, pixels in progress_bar(loader, desc=desc, total=len(files), unit="image", disable=desc is None):
        if isinstance(pixels, Unreadable):
            if not skip_bad:
                raise UserError(f"{pixels.reason}; mend it or take it out of the list")
            bad.append(index)
            pixels = torch.zeros(1, 3, *seen_by.size, dtype=torch.uint8)
        assert isinstance(pixels, Tensor)  # `centre` does not return planned views
        batch.append(pixels)
        if len(batch) == batch_size or index == len(files) - 1:
            views = torch.cat(batch)
            for clip, rows in zip(clips, features, strict=True):
                rows.append(clip.encode_image(clip.prepare(views)))
            batch = []
    stacked = [torch.cat(rows) for rows in features]
    for matrix in stacked:
        matrix[bad] = torch.nan
    return stacked
