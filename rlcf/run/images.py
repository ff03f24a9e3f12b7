"""Reads images in worker processes: one by one for adaptation, or in batches for features."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rlcf.adapt.groups import Unreadable
from rlcf.adapt.views import PlannedViews, Views
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError
from rlcf.inputs.images import read_image
from rlcf.inputs.sources import Source
from rlcf.progress import progress_bar
from rlcf.run.folder import logger

Loaded = tuple[int, Tensor | PlannedViews | Unreadable]
"""Index of an image, and its pixels, its planned views, or the reason why it cannot be read."""


@dataclass(frozen=True)
class ImageLoader(Dataset[Loaded]):
    """Transformed images, read in an order. Item i is (i, image).

    The image is that of `files[i]` after `transform`, or an `Unreadable` for a file that cannot be read.

    files: where the images are read from. order: indices into `files`, in the order in which they are read; it may be
    known bit by bit only.
    transform: a function from an image and its index to a tensor or to `PlannedViews`.
    draft: (H, W) of the views, for faster decoding of large JPEGs; published: as the published code reads its datasets;
    both as in `read_image`.
    """

    files: Sequence[Source]
    order: Iterable[int]
    transform: Callable[[Image, int], Tensor | PlannedViews]
    draft: tuple[int, int] | None = None
    published: bool = False

    def __getitem__(self, index: int) -> Loaded:
        try:
            image = read_image(self.files[index], self.draft, self.published)
        except UserError as error:
            return index, Unreadable(str(error))
        return index, self.transform(image, index)

    def one_by_one(self, workers: int, pin_memory: bool = False) -> Iterator[Loaded]:
        """Iterates over the items in order. workers: number of processes that read them, 0 for this process.

        Raises UserError if the processes cannot be started.
        """
        workers = min(workers, len(self.order)) if isinstance(self.order, Sized) else workers
        items = replace(self, order=())  # the order stays in this process
        loader = DataLoader(
            items,
            batch_size=None,
            sampler=self.order,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_send_by_pipe,
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
def encode_batches(
    clips: Sequence[Backbone],
    files: Sequence[Source],
    order: Iterable[int],
    workers: int = 2,
    batch_size: int = 64,
    view: Backbone | None = None,
    skip_bad: bool = False,
    published: bool = False,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """The features of image files by several models, batch by batch: indices of n files, and (n, D) a model.

    order: indices of the files that are wanted, in batches that stand together: only that of the last file may be
    smaller than `batch_size`. Otherwise as `encode_images`, which see.
    """
    seen_by = view or clips[0]
    centre = Views(seen_by.centre_view, seen_by.size, count=1)
    batch: dict[int, Tensor] = {}
    bad: list[int] = []
    for index, pixels in ImageLoader(files, order, centre, published=published).one_by_one(workers):
        if isinstance(pixels, Unreadable):
            if not skip_bad:
                raise UserError(f"{pixels.reason}; mend it or take it out of the list")
            bad.append(len(batch))
            pixels = torch.zeros(1, 3, *seen_by.size, dtype=torch.uint8)
        assert isinstance(pixels, Tensor)  # `centre` does not return planned views
        batch[index] = pixels
        if len(batch) == batch_size or index == len(files) - 1:
            views = torch.cat(list(batch.values()))
            features = [clip.encode_image(clip.prepare(views)) for clip in clips]
            for matrix in features:
                matrix[bad] = torch.nan
            yield list(batch), features
            batch, bad = {}, []


def encode_images(
    clips: Sequence[Backbone],
    files: Sequence[Source],
    workers: int = 2,
    batch_size: int = 64,
    desc: str | None = "images",
    view: Backbone | None = None,
    skip_bad: bool = False,
    published: bool = False,
) -> list[Tensor]:
    """The features of image files by several models. Each file is read once.

    All models get the same view of an image, resized to each model's input, as in the published code. It is the
    evaluation view of `view`, or of the first model if `view` is None.

    workers: number of processes that read files. batch_size: images that are encoded together.
    desc: label of the progress bar, None for no bar. skip_bad: give a file that cannot be read NaN as features.
    published: read images as the published code reads its datasets.
    Returns a matrix for each model, (len(files), D), unit length.
    Raises UserError naming a file that cannot be read, unless skip_bad is True.
    """
    features: list[list[Tensor]] = [[] for _ in clips]
    with progress_bar(desc=desc, total=len(files), unit="image", disable=desc is None) as progress:
        order = range(len(files))
        for indices, batch in encode_batches(clips, files, order, workers, batch_size, view, skip_bad, published):
            for matrix, rows in zip(features, batch, strict=True):
                matrix.append(rows)
            progress.update(len(indices))
    return [torch.cat(rows) for rows in features]
