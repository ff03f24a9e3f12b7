"""Features that are extracted chunk by chunk, into files that a stopped extraction goes on with."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rlcf.run.data import CaptionedImage
from rlcf.run.files import writing
from rlcf.run.records import logger


class Rows:
    """A matrix on disk that grows by whole rows. Raises UserError where its file cannot be written."""

    def __init__(self, file: Path, width: int) -> None:
        self.file, self.width = file, width
        with writing(file):
            file.touch()
            self.done = file.stat().st_size // (4 * width)
            with file.open("r+b") as stream:
                stream.truncate(self.done * 4 * width)

    def append(self, rows: Tensor) -> None:
        """rows: (N, width)."""
        with writing(self.file), self.file.open("ab") as stream:
            stream.write(rows.cpu().numpy().astype("<f4").tobytes())

    def read(self) -> Tensor:
        """(N, width)."""
        return torch.from_numpy(np.fromfile(self.file, "<f4").reshape(-1, self.width))


def encode_all(
    folder: Path, kind: str, items: Sequence[Any], width: int, chunk: int, encode: Callable[[Sequence[Any]], Tensor]
) -> Tensor:
    """Features of all items, encoded chunk by chunk; a stopped extraction goes on with the next chunk.

    kind: "image" or "caption", the name of the file in `folder`. Returns (len(items), width).
    """
    rows = Rows(folder / f"{kind}.f32", width)
    with tqdm(desc=kind, initial=rows.done, total=len(items), unit=kind) as progress:
        for start in range(rows.done, len(items), chunk):
            part = items[start : start + chunk]
            rows.append(encode(part))
            progress.update(len(part))
    return rows.read()


def without_unread(samples: list[CaptionedImage], image: Tensor) -> tuple[list[CaptionedImage], Tensor]:
    """The images that could be read. image: (I, D), NaN for one that could not."""
    read = image.isfinite().all(dim=1)
    for sample, fine in zip(samples, read.tolist(), strict=True):
        if not fine:
            logger.info("left out: %s", sample.image)
    return [sample for sample, fine in zip(samples, read.tolist(), strict=True) if fine], image[read]
