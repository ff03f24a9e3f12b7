"""The part of a dataset's records that one process writes, while the run goes on."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from rlcf.errors import UserError
from rlcf.run.files import writing
from rlcf.run.kept import NONE, Keeper
from rlcf.run.record_lines import SUM, Line, Record, checksum, pieces, read_lines


class Part:
    """One process's records: a line, a row of arrays and a checksum each, in three files that grow together.

    file: the lines, .jsonl; the rows are in .f32 beside it, the checksums in .sums. width: floats of a row, 0 for none.
    key: of the checksums, so that records of another run are not taken for this one's.
    count: records that are known; size: bytes of their lines; kept: what `read` kept of each, until `forget`.
    """

    def __init__(self, file: Path, width: int, key: bytes) -> None:
        self.file, self.width, self.key = file, width, key
        self.rows_file, self.sums_file = file.with_suffix(".f32"), file.with_suffix(".sums")
        self.count, self.size, self.kept = 0, 0, NONE

    def lines(self) -> Iterator[Line]:
        """As `read_lines`, which see; a whole record has a full line, a row and a checksum.

        A process that was killed leaves half a record at the end, a crash of the machine more of them.
        """
        rows = pieces(self.rows_file, 4 * self.width) if self.width else None
        return read_lines(self.file, self.sums_file, self.key, rows)

    def read(self, keeper: Keeper) -> None:
        """Read the records that are whole. Raises UserError as `Keeper.keep`."""
        self.kept = keeper.keep(self.file, self.lines())
        self.cut(len(self.kept))

    def cut(self, count: int) -> None:
        """Know the first `count` records alone, of those that were read."""
        self.kept = self.kept[:count]
        self.know(count, int(self.kept["end"][-1]) if count else 0)

    def know(self, count: int, size: int) -> None:
        """Know so many records, whose lines have so many bytes."""
        self.count, self.size = count, size

    def forget(self) -> None:
        """Keep nothing of the records, but their number."""
        self.kept = NONE

    def append(self, record: Record, row: bytes = b"") -> None:
        """Add a record. Its line is written last, so that it never lacks its row and checksum.

        Raises UserError where its files cannot be written, and as `require_whole`.
        """
        self.require_whole()
        line = json.dumps(record).encode()
        contents = {self.rows_file: row} if self.width else {}
        contents |= {self.sums_file: checksum(self.key, line, row), self.file: line + b"\n"}
        for file, content in contents.items():
            with writing(file), file.open("ab") as stream:
                stream.write(content)
        self.know(self.count + 1, self.size + len(line) + 1)

    def fill(self, lines: Iterable[bytes], sums: bytes, rows: Iterable[bytes]) -> None:
        """Write the files of these records. The lines come last, as in `append`; `read` reads them.

        lines: with their ends; sums: of all of them. Raises UserError where they cannot be written.
        """
        contents: dict[Path, Iterable[bytes]] = {self.rows_file: rows} if self.width else {}
        for file, parts in (contents | {self.sums_file: [sums], self.file: lines}).items():
            with writing(file), file.open("wb") as stream:
                stream.writelines(parts)

    def cut_files(self) -> None:
        """Cut the files to the records that are known; the lines first, as a record is counted by its line."""
        for file, size in self._sizes().items():
            if _size(file) > size:
                os.truncate(file, size)

    def require_whole(self) -> None:
        """Raises UserError where a file is not as long as the records that are known: somebody else changed it.

        Where the whole folder is gone, the next write tells it.
        """
        for file, size in self._sizes().items():
            if _size(file) != size and file.parent.exists():
                raise UserError(
                    f"{file} was deleted or changed while the run went on; the same command does again what is missing"
                )

    def sums(self) -> np.ndarray:
        """(count, SUM) uint8, the checksums."""
        return np.fromfile(self.sums_file, np.uint8, SUM * self.count).reshape(-1, SUM)

    def seen(self, count: int) -> str:
        """A digest of the first `count` records, which are there."""
        digest = hashlib.sha256()
        if count:
            with self.sums_file.open("rb") as stream:
                digest.update(stream.read(SUM * count))
        return digest.hexdigest()

    def _sizes(self) -> dict[Path, int]:
        """The bytes of each file with the records that are known."""
        rows = {self.rows_file: 4 * self.width * self.count} if self.width else {}
        return {self.file: self.size, self.sums_file: SUM * self.count, **rows}


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
