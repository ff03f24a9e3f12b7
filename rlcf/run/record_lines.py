"""The lines of a file of records, read in a stream, each held to its checksum."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

from rlcf.errors import UserError

Record = dict[str, Any]


class Line(NamedTuple):
    """A record as a file has it.

    end: the bytes of the file up to the end of its line; row: of the arrays beside it, empty where there are none. It
    is whole where it has a checksum and a row, else its row is None.
    """

    record: Record
    end: int
    row: bytes | None


SUM = 16
"""Bytes of a checksum."""


def read_lines(file: Path, sums_file: Path, key: bytes, rows: Iterable[bytes] | None = None) -> Iterator[Line]:
    """Each record of a file, as a `Line`.

    sums_file: of the checksums, `SUM` bytes each; key: of the checksums; rows: of the arrays beside the records, None
    where there are none. The records that are not whole come last. A line without an end is left out. Raises UserError
    naming the line that is no record, or that is not as it was written.
    """
    known, end = zip(pieces(sums_file, SUM), repeat(b"") if rows is None else rows, strict=False), 0
    for number, line in enumerate(_ended(file), start=1):
        end += len(line) + 1
        record, sum_and_row = parse(file, number, line), next(known, None)
        if sum_and_row is not None and checksum(key, line, sum_and_row[1]) != sum_and_row[0]:
            raise damaged(file, number)
        yield Line(record, end, None if sum_and_row is None else sum_and_row[1])


def read_unchecked(file: Path) -> Iterator[Record]:
    """Each record of a file. Raises UserError naming the line that is no record."""
    return (parse(file, number, line) for number, line in enumerate(_ended(file), start=1))


def parse(file: Path, number: int, line: bytes) -> Record:
    """The record of a line. number: of the line, from 1. Raises UserError naming it where it is no record."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(file, number) from error
    if not isinstance(record, dict) or type(record.get("index")) is not int or not 0 <= record["index"] < 2**63:
        raise damaged(file, number)
    if not isinstance(record.get("id"), str) or not isinstance(record.get("status"), str):
        raise damaged(file, number)
    return record


def checksum(key: bytes, line: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(line + b"\n" + row, digest_size=SUM, key=key).digest()


def pieces(file: Path, size: int) -> Iterator[bytes]:
    """The content of a file in pieces of so many bytes, without what is less; none of a file that is missing."""
    if file.exists():
        with file.open("rb") as stream:
            while len(piece := stream.read(size)) == size:
                yield piece


def repeated(file: Path, number: int) -> UserError:
    return UserError(f"{file} repeats a sample in line {number}; delete its folder to start it afresh")


def damaged(file: Path, number: int) -> UserError:
    return UserError(f"{file} is damaged in line {number}; delete its folder to start it afresh")


def _ended(file: Path) -> Iterator[bytes]:
    """The lines that have an end, without it."""
    if file.exists():
        with file.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield line[:-1]
