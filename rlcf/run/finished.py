"""The records of a dataset that is finished: one file by rising index, and a matrix a kind of logits."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from rlcf.errors import UserError
from rlcf.run.files import replacing, write_atomically
from rlcf.run.kept import Keeper
from rlcf.run.parts import Part
from rlcf.run.record_lines import SUM, Line, Record, damaged, read_lines, read_unchecked
from rlcf.run.tensor_files import save_rows_atomically

BLOCK = 1024
"""Rows of matrices after which their file is opened anew: what was read of it is then no longer held."""


class Finished:
    """The records of a dataset that is finished. Each time that it is iterated over, they are read in a stream.

    folder: of the dataset; key: of the checksums; widths: name -> width of the matrices beside the records; described:
    their metadata.
    """

    def __init__(self, folder: Path, key: bytes, widths: Mapping[str, int], described: Mapping[str, str]) -> None:
        self.file, self.sums_file = folder / "records.jsonl", folder / "records.sums"
        self.logits_file = folder / "logits.safetensors"
        self.key, self.widths, self.described = key, widths, described

    def __iter__(self) -> Iterator[Record]:
        return read_unchecked(self.file)

    def lines(self) -> Iterator[Line]:
        """As `read_lines`, with every record whole.

        Raises UserError naming the line of a record that is not as it was written or that is missing, and for damaged
        matrices.
        """
        sums = _size(self.sums_file) // SUM
        rows = self._count_rows() if self.widths else sums
        matrices = self._rows(range(rows)) if self.widths else None
        number = end = 0
        found = read_lines(self.file, self.sums_file, self.key, matrices)
        for number, line in enumerate(found, start=1):
            if line.row is None:
                raise damaged(self.file, number) if number > sums else self._wrong_matrices()
            end = line.end
            yield line
        if (number, SUM * number, end) != (sums, _size(self.sums_file), _size(self.file)):
            raise damaged(self.file, min(number, sums) + 1)
        if number != rows:
            raise self._wrong_matrices()

    def write(self, parts: Sequence[Part]) -> None:
        """Write the records of parts that were read. The lines come last: without them nothing is finished."""
        number = np.repeat(np.arange(len(parts)), [part.count for part in parts])
        place = np.concatenate([np.arange(part.count) for part in parts])
        kept = np.concatenate([part.kept for part in parts])
        start = np.concatenate([np.append(0, part.kept["end"])[: part.count] for part in parts])
        order = np.argsort(kept["index"])
        if self.widths and len(order):
            rows = np.stack([number, place], axis=1)[order]
            save_rows_atomically(
                self.logits_file, self.widths, [part.rows_file for part in parts], rows, self.described
            )
        sums = np.concatenate([part.sums() for part in parts if part.count] or [np.empty((0, SUM), np.uint8)])
        write_atomically(self.sums_file, sums[order].tobytes())
        spans = zip(number[order], start[order], kept["end"][order], strict=True)
        with replacing(self.file) as temporary, temporary.open("wb") as stream:
            stream.writelines(_cut_out([part.file for part in parts], spans))

    def take_apart(self, part: Part, kept: np.ndarray, visited: np.ndarray) -> None:
        """Make a part of the records, then remove them; the reverse of `write`.

        kept: of the records; visited: their places in the order in which the part has them.
        """
        start = np.append(0, kept["end"])[:-1]
        spans = zip(np.zeros_like(visited), start[visited], kept["end"][visited], strict=True)
        sums = np.fromfile(self.sums_file, np.uint8).reshape(-1, SUM)[visited].tobytes()
        part.fill(_cut_out([self.file], spans), sums, self._rows(map(int, visited)) if self.widths else ())
        for file in (self.file, self.sums_file, self.logits_file):
            file.unlink(missing_ok=True)

    def _count_rows(self) -> int:
        """The number of rows of the matrices. Raises UserError for others than they should be."""
        try:
            with safe_open(self.logits_file, "np") as held:
                fits = set(held.keys()) == set(self.widths) and (held.metadata() or {}) == dict(self.described)
                shapes = [held.get_slice(name).get_shape() for name in self.widths] if fits else []
        except (SafetensorError, OSError) as error:
            raise self._wrong_matrices() from error
        count = shapes[0][0] if shapes and shapes[0] else -1
        if shapes != [[count, width] for width in self.widths.values()]:
            raise self._wrong_matrices()
        return int(count)

    def _rows(self, places: Iterable[int]) -> Iterator[bytes]:
        """The rows of records in the matrices, as the parts hold them."""
        wanted = iter(places)
        try:
            while block := list(islice(wanted, BLOCK)):
                with safe_open(self.logits_file, "np") as held:
                    matrices = [held.get_slice(name) for name in self.widths]
                    for i in block:
                        yield b"".join(matrix[i : i + 1].tobytes() for matrix in matrices)
        except (SafetensorError, OSError) as error:
            raise self._wrong_matrices() from error

    def _wrong_matrices(self) -> UserError:
        return UserError(
            f"{self.logits_file} is missing, damaged or of another run; delete its folder to start it afresh"
        )


def read_finished(finished: Finished, keeper: Keeper) -> np.ndarray:
    """(N,) of `KEPT`. Raises UserError as `Finished.lines` and `Keeper.keep`."""
    return keeper.keep(finished.file, finished.lines())


def _cut_out(files: Sequence[Path], spans: Iterable[tuple[int, int, int]]) -> Iterator[bytes]:
    """Pieces of files. spans: of each piece the number of its file, its start and its end, bytes."""
    with ExitStack() as stack:
        there = {number: file for number, file in enumerate(files) if file.exists()}
        handles = {number: stack.enter_context(file.open("rb")).fileno() for number, file in there.items()}
        for number, start, end in spans:
            yield os.pread(handles[int(number)], int(end - start), int(start))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
