"""Writes tensors to safetensors files atomically."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from rlcf.run.files import replacing


def save_atomically(file: Path, tensors: dict[str, Tensor], described: dict[str, str] | None = None) -> None:
    """Writes tensors to a safetensors file, by way of a temporary file beside it. described: the file's metadata.

    Raises UserError as `writing`.
    """
    with replacing(file) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=described)


def save_rows_atomically(
    file: Path, widths: dict[str, int], rows: Sequence[tuple[Path, int]], described: dict[str, str]
) -> None:
    """Writes matrices to a safetensors file one row at a time, so that they need not fit into memory.

    The rows are read from raw fp32 files. A record of such a file is a row of the first matrix, then a row of the
    second, and so on.

    widths: name of each matrix -> number of its columns, in the order of a record.
    rows: for each row of the matrices, the raw file and the number of the record in it.
    described: the metadata of the file that is written. Raises UserError as `writing`.
    """
    header: dict[str, Any] = {"__metadata__": described}
    end = 0
    for name, width in widths.items():
        begin, end = end, end + 4 * width * len(rows)
        header[name] = {"dtype": "F32", "shape": [len(rows), width], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replacing(file) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        whole, column = sum(widths.values()), 0
        for width in widths.values():
            for source, place in rows:
                row = np.fromfile(source, "<f4", width, offset=4 * (whole * place + column))
                stream.write(row.tobytes())
            column += width
