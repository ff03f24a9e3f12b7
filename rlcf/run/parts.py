"""Files of records, each record with a checksum: the part that one process writes, and the whole of a dataset."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rlcf.errors import UserError
from rlcf.run.files import writing

Record = dict[str, Any]
SUM = 16
"""Bytes of a checksum."""


class Part:
    """One process's records: a line, a row of arrays and a checksum each, in three files that grow together.

    file: the lines, .jsonl; the rows are in .f32 beside it, the checksums in .sums. width: floats of a row, 0 for none.
    key: of the checksums, so that records of another run are not taken for this one's.
    records, sums, lines: what `read` found and `append` added.
    """

    def __init__(self, file: Path, width: int, key: bytes) -> None:
        self.file, self.width, self.key = file, width, key
        self.rows_file, self.sums_file = file.with_suffix(".f32"), file.with_suffix(".sums")
        self.records: list[Record] = []
        self.lines: list[bytes] = []
        self.sums: list[bytes] = []
        self._bytes = 0  # of the lines

    def read(self) -> None:
        """Read the records that are whole: those with a full line, a row and a checksum.

        A process that was killed leaves half a record at the end, a crash of the machine more of them. Raises UserError
        naming the line of a record that is not as it was written.
        """
        lines = _bytes(self.file).split(b"\n")[:-1]
        records = parse(self.file, lines)
        sums = _bytes(self.sums_file)
        count = min(len(lines), len(sums) // SUM)
        if self.width:
            count = min(count, _size(self.rows_file) // (4 * self.width))
        self.records, self.lines = records[:count], lines[:count]
        self.sums = [sums[i : i + SUM] for i in range(0, SUM * count, SUM)]
        self._bytes = sum(len(line) + 1 for line in self.lines)
        check(self.file, self.lines, self.sums, self._rows(), self.key)

    def append(self, record: Record, row: bytes = b"") -> None:
        """Add a record. Its line is written last, so that it never lacks its row and checksum.

        Raises UserError where its files cannot be written, and as `require_whole`.
        """
        self.require_whole()
        line = json.dumps(record).encode()
        added = checksum(self.key, line, row)
        contents = {self.rows_file: row} if self.width else {}
        for file, content in (contents | {self.sums_file: added, self.file: line + b"\n"}).items():
            with writing(file), file.open("ab") as stream:
                stream.write(content)
        self.records.append(record)
        self.lines.append(line)
        self.sums.append(added)
        self._bytes += len(line) + 1

    def fill(self, lines: Sequence[bytes], sums: Sequence[bytes], rows: Iterable[bytes]) -> None:
        """Write the files of these records. The lines come last, as in `append`; `read` reads them.

        Raises UserError where they cannot be written.
        """
        contents = {self.rows_file: rows} if self.width else {}
        for file, parts in (contents | {self.sums_file: sums, self.file: (line + b"\n" for line in lines)}).items():
            with writing(file), file.open("wb") as stream:
                stream.writelines(parts)

    def cut(self, count: int) -> None:
        """Forget all records but the first `count`."""
        self._bytes -= sum(len(line) + 1 for line in self.lines[count:])
        del self.records[count:], self.lines[count:], self.sums[count:]

    def cut_files(self) -> None:
        """Cut the files to the records that are known; the lines first, as `read` counts a record by its line."""
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

    def _sizes(self) -> dict[Path, int]:
        """The bytes of each file with the records that are known."""
        rows = {self.rows_file: 4 * self.width * len(self.lines)} if self.width else {}
        return {self.file: self._bytes, self.sums_file: SUM * len(self.sums), **rows}

    def remove(self) -> None:
        for file in (self.file, self.rows_file, self.sums_file):
            file.unlink(missing_ok=True)

    def _rows(self) -> Iterator[bytes]:
        """The rows of the records, as they are on disk."""
        if not self.width or not self.lines:
            yield from (b"" for _ in self.lines)
            return
        with self.rows_file.open("rb") as stream:
            for _ in self.lines:
                yield stream.read(4 * self.width)


def read_whole(
    file: Path, sums_file: Path, key: bytes, rows_file: Path, widths: Mapping[str, int], described: Mapping[str, str]
) -> list[Record]:
    """The records of a dataset that is finished.

    rows_file: the safetensors file of their arrays; widths, described: of its matrices, and its metadata. Raises
    UserError naming the line of a record that is not as it was written or that is missing, and for damaged arrays.
    """
    *lines, torn = _bytes(file).split(b"\n")
    sums = _bytes(sums_file)
    records = parse(file, lines)
    if torn or SUM * len(lines) != len(sums):
        raise _damaged(file, min(len(lines), len(sums) // SUM) + 1)
    rows = rows_of(rows_file, widths, len(lines), described, range(len(lines))) if widths else (b"" for _ in lines)
    check(file, lines, [sums[i : i + SUM] for i in range(0, len(sums), SUM)], rows, key)
    return records


def rows_of(
    file: Path, widths: Mapping[str, int], count: int, described: Mapping[str, str], places: Iterable[int]
) -> Iterator[bytes]:
    """The rows of records in the matrices of a safetensors file, as the parts held them.

    count: of the file's rows; places: of those that are wanted, in their order. widths, described: as in `read_whole`.
    """
    wrong = f"{file} is missing, damaged or of another run; delete its folder to start it afresh"
    try:
        with safe_open(file, "np") as held:
            fits = set(held.keys()) == set(widths) and (held.metadata() or {}) == dict(described)
            matrices = [held.get_slice(name) for name in widths] if fits else []
            if [matrix.get_shape() for matrix in matrices] != [[count, width] for width in widths.values()]:
                raise UserError(wrong)
            for i in places:
                yield b"".join(matrix[i : i + 1].tobytes() for matrix in matrices)
    except (SafetensorError, OSError) as error:
        raise UserError(wrong) from error


def parse(file: Path, lines: Sequence[bytes]) -> list[Record]:
    """The records of lines. Raises UserError naming the line that is no record, or that repeats a sample."""
    records: list[Record] = []
    seen: set[int] = set()
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise _damaged(file, number) from error
        if not isinstance(record, dict) or type(record.get("index")) is not int or record["index"] < 0:
            raise _damaged(file, number)
        if not isinstance(record.get("id"), str) or not isinstance(record.get("status"), str):
            raise _damaged(file, number)
        if record["index"] in seen:
            raise repeated(file, number)
        seen.add(record["index"])
        records.append(record)
    return records


def check(file: Path, lines: Iterable[bytes], sums: Iterable[bytes], rows: Iterable[bytes], key: bytes) -> None:
    """Raises UserError naming the line whose checksum is not that of the line and its row."""
    for number, (line, known, row) in enumerate(zip(lines, sums, rows, strict=True), start=1):
        if checksum(key, line, row) != known:
            raise _damaged(file, number)


def checksum(key: bytes, line: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(line + b"\n" + row, digest_size=SUM, key=key).digest()


def repeated(file: Path, number: int) -> UserError:
    return UserError(f"{file} repeats a sample in line {number}; delete its folder to start it afresh")


def _damaged(file: Path, number: int) -> UserError:
    return UserError(f"{file} is damaged in line {number}; delete its folder to start it afresh")


def _bytes(file: Path) -> bytes:
    return file.read_bytes() if file.exists() else b""


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
