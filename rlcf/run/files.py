"""Writes files atomically: a reader finds the old content or the whole new one, also after a crash."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor


def write_atomically(file: Path, text: str) -> None:
    """Writes a text to a file, by way of a temporary file beside it."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def save_atomically(file: Path, tensors: dict[str, Tensor], described: dict[str, str] | None = None) -> None:
    """Writes tensors to a safetensors file, by way of a temporary file beside it. described: the file's metadata."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=described)
    temporary.replace(file)


def save_rows_atomically(
    file: Path, widths: dict[str, int], rows: Sequence[tuple[Path, int]], described: dict[str, str]
) -> None:
    """Writes matrices to a safetensors file one row at a time, so that they need not fit into memory.

    The rows are read from raw fp32 files. A record of such a file is a row of the first matrix, then a row of the
    second, and so on.

    widths: name of each matrix -> number of its columns, in the order of a record.
    rows: for each row of the matrices, the raw file and the number of the record in it.
    described: the metadata of the file that is written.
    """
    header: dict[str, Any] = {"__metadata__": described}
    end = 0
    for name, width in widths.items():
        begin, end = end, end + 4 * width * len(rows)
        header[name] = {"dtype": "F32", "shape": [len(rows), width], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        whole, column = sum(widths.values()), 0
        for width in widths.values():
            for source, place in rows:
                row = np.fromfile(source, "<f4", width, offset=4 * (whole * place + column))
                stream.write(row.tobytes())
            column += width
    temporary.replace(file)
