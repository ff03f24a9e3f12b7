"""Writes tensors to safetensors files atomically; large matrices row by row."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlcf.run.files import replacing

DIGEST = "digest"
"""What the metadata calls the digest of a file's numbers."""


def save_atomically(file: Path, tensors: dict[str, Tensor], described: dict[str, str] | None = None) -> None:
    """Writes tensors to a safetensors file, by way of a temporary file beside it. described: the file's metadata.

    Raises UserError as `writing`.
    """
    with replacing(file) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=described)


def save_rows_atomically(
    file: Path, widths: Mapping[str, int], sources: Sequence[Path], rows: np.ndarray, described: Mapping[str, str]
) -> None:
    """Writes matrices to a safetensors file one row at a time, so that they need not fit into memory.

    The rows are read from raw fp32 files. A record of such a file is a row of the first matrix, then a row of the
    second, and so on.

    widths: name of each matrix -> number of its columns, in the order of a record. sources: the raw files.
    rows: (N, 2) integers, for each row of the matrices the number of the raw file and of the record in it.
    described: the metadata of the file that is written. Raises UserError as `writing`.
    """
    shapes = {name: (len(rows), width) for name, width in widths.items()}
    with replacing(file) as temporary, temporary.open("wb") as stream, ExitStack() as stack:
        stream.write(header(shapes, described))
        handles = {
            number: stack.enter_context(sources[number].open("rb")).fileno() for number in set(rows[:, 0].tolist())
        }
        whole, column = sum(widths.values()), 0
        for width in widths.values():
            for number, place in zip(rows[:, 0], rows[:, 1], strict=True):
                stream.write(os.pread(handles[int(number)], 4 * width, 4 * (whole * int(place) + column)))
            column += width


@contextmanager
def writing_rows(
    file: Path, name: str, shape: tuple[int, int], described: Mapping[str, str]
) -> Iterator[Callable[[int, Tensor], None]]:
    """A context in which the rows of a matrix are written to a safetensors file, in any order, and not held.

    It gives a function of the number of the first row and the rows, (n, D). name, shape: of the matrix; described: the
    file's metadata, to which a digest of the numbers is added. The file is there when the context is left without an
    error. Raises UserError as `writing`.
    """
    start = header({name: shape}, {**described, DIGEST: "0" * 64})
    with replacing(file) as temporary, temporary.open("w+b") as stream:
        stream.write(start)
        stream.truncate(len(start) + 4 * shape[0] * shape[1])

        def put(first: int, rows: Tensor) -> None:
            stream.seek(len(start) + 4 * shape[1] * first)
            stream.write(rows.detach().cpu().float().contiguous().numpy().data)

        yield put
        stream.flush()
        stream.seek(0)
        stream.write(header({name: shape}, {**described, DIGEST: _digest_behind(temporary, len(start))}))


def is_whole(file: Path, name: str, shape: tuple[int, int], described: Mapping[str, str]) -> bool:
    """True for an undamaged file of `writing_rows` with a matrix of this name and shape, and this metadata."""
    try:
        with safe_open(file, "np") as held:
            told, names = held.metadata() or {}, list(held.keys())
            found = held.get_slice(name).get_shape() if names == [name] else []
        if found != list(shape) or any(told.get(key) != value for key, value in described.items()):
            return False
        with file.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
        return start + 4 * shape[0] * shape[1] == file.stat().st_size and told.get(DIGEST) == _digest_behind(
            file, start
        )
    except (SafetensorError, OSError):
        return False


def _digest_behind(file: Path, start: int) -> str:
    """A digest of a file's bytes from a place on, read piece by piece."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(start)
        while piece := stream.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def header(shapes: Mapping[str, tuple[int, int]], described: Mapping[str, str]) -> bytes:
    """The start of a safetensors file of fp32 matrices, whose numbers then follow in this order, row by row.

    shapes: name of each matrix -> its shape; described: the file's metadata.
    """
    told: dict[str, Any] = {"__metadata__": dict(described)}
    end = 0
    for name, (height, width) in shapes.items():
        begin, end = end, end + 4 * width * height
        told[name] = {"dtype": "F32", "shape": [height, width], "data_offsets": [begin, end]}
    text = json.dumps(told).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
