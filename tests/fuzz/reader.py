"""What a reader is to the fuzzer."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.files import Tree

MB = 2**20


@dataclass(frozen=True)
class Reader:
    """A reader.

    seeds: writes what the reader needs beside its files into a folder, which is kept; gives name -> whole files.
    read: reads the files of a folder, given also the name of the seed that they were made of and the folder of `seeds`.
    weight: its share of the inputs. targets: patterns of the files that are mutated. memory: bytes that reading may
    take beyond ten times the files' own. refused: seeds of forms that it refuses even where they are whole.
    forge: changes several files that belong together, where there are such. command: it is an entry script's main,
    where a failure of the system is told in one sentence, too.
    """

    name: str
    seeds: Callable[[Path], dict[str, Tree]]
    read: Callable[[Path, str, Path], object]
    weight: int = 4
    targets: Sequence[str] = ("*",)
    memory: int = 300 * MB
    refused: Sequence[str] = ()
    forge: Callable[[Tree, random.Random], tuple[str, Tree]] | None = None
    command: bool = False
