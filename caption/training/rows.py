"""Features that are extracted chunk by chunk, into files that a stopped extraction goes on with."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlcf.inputs.lists import CaptionedImage
from rlcf.progress import progress_bar
from rlcf.run.files import writing
from rlcf.run.folder import logger
from rlcf.run.record_lines import SUM, checksum


class Rows:
    """A matrix on disk that grows by chunks of rows, each with a checksum in a file beside it.

    file: of the rows, .f32; chunk: rows of each write but the last one; total: rows in the end; key: of the checksums.
    done: rows that are there. From the first chunk that is not as it was written, the rows are done again. Raises
    UserError where its files cannot be written.
    """

    def __init__(self, file: Path, width: int, chunk: int, total: int, key: bytes) -> None:
        self.file, self.sums_file, self.width, self.key = file, file.with_suffix(".sums"), width, key
        for created in (self.file, self.sums_file):
            with writing(created):
                created.touch()
        whole, sums = 0, self.sums_file.read_bytes()
        self.done = 0
        with file.open("rb") as stream:
            for start in range(0, total, chunk):
                rows = stream.read(4 * width * min(chunk, total - start))
                if sums[SUM * whole : SUM * (whole + 1)] != checksum(key, b"", rows):
                    break
                whole, self.done = whole + 1, min(start + chunk, total)
        os.truncate(self.sums_file, SUM * whole)
        os.truncate(self.file, 4 * width * self.done)

    def append(self, rows: Tensor) -> None:
        """rows: (N, width)."""
        content = rows.cpu().numpy().astype("<f4").tobytes()
        for file, added in ((self.file, content), (self.sums_file, checksum(self.key, b"", content))):
            with writing(file), file.open("ab") as stream:
                stream.write(added)

    def read(self) -> Tensor:
        """(N, width)."""
        return torch.from_numpy(np.fromfile(self.file, "<f4").reshape(-1, self.width))


def encode_all(
    folder: Path,
    kind: str,
    key: bytes,
    items: Sequence[Any],
    width: int,
    chunk: int,
    encode: Callable[[Sequence[Any]], Tensor],
) -> Tensor:
    """Features of all items, encoded chunk by chunk; a stopped extraction goes on with the next chunk.

    kind: "image" or "caption", the name of the file in `folder`; key: of its checksums. Returns (len(items), width).
    """
    rows = Rows(folder / f"{kind}.f32", width, chunk, len(items), key)
    with progress_bar(desc=kind, initial=rows.done, total=len(items), unit=kind) as progress:
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
