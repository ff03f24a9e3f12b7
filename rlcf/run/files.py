"""Files that are written in one piece: the whole new content or the old one, whatever happens in between."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor


def write_atomically(file: Path, text: str) -> None:
    """The whole new content or the old one, whatever happens in between."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


def save_atomically(file: Path, tensors: dict[str, Tensor], described: dict[str, str] | None = None) -> None:
    """`write_atomically` for a safetensors file. described: its metadata."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=described)
    temporary.replace(file)


def save_rows_atomically(
    file: Path, widths: dict[str, int], rows: Sequence[tuple[Path, int]], described: dict[str, str]
) -> None:
    """`save_atomically` for matrices that need not fit into the memory: their rows lie side by side in raw files.

    widths: name -> columns of a matrix; rows: the file of each row of all matrices, and its place there.
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
