"""The inputs: whole files of each reader, kept in a folder, and the mutations that a seed and a number decide."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path

from tests.fuzz.files import Tree, read_tree, write_tree
from tests.fuzz.mutations import damage
from tests.fuzz.reader import Reader
from tests.fuzz.readers import READERS
from tests.fuzz.runs import RUNS

ALL = {reader.name: reader for reader in [*READERS, *(runs.reader for runs in RUNS)]}
FORGED = 0.4
"""The share of the inputs of a reader of forged files that are such."""
FOREIGN = [
    b"[]",
    b'{"a": 1}',
    b"a: 1\n",
    b"%PDF-1.4\n",
    b"PK\x03\x04" + bytes(60),
    b"\x80\x02}q\x00.",
    b"<html></html>",
]
"""The beginnings of files of other kinds."""


@dataclass(frozen=True)
class Case:
    """An input. mutations: of the files of `seed`, each with its file's name."""

    reader: str
    seed: str
    mutations: list[str]
    tree: Tree


@dataclass(frozen=True)
class Corpus:
    """The whole files of some readers. They are written once into a folder, and read from there afterwards."""

    folder: Path
    names: Sequence[str]

    def beside(self, reader: str) -> Path:
        """The folder of what a reader needs beside its files."""
        return self.folder / reader / "beside"

    @cached_property
    def seeds(self) -> dict[str, dict[str, Tree]]:
        """Reader -> name -> whole files."""
        return {name: self._seeds(ALL[name]) for name in self.names}

    def _seeds(self, reader: Reader) -> dict[str, Tree]:
        kept, beside = self.folder / reader.name / "seeds", self.beside(reader.name)
        if not kept.exists():
            shutil.rmtree(self.folder / reader.name, ignore_errors=True)
            beside.mkdir(parents=True)
            made = kept.with_name("made")
            for seed, tree in reader.seeds(beside).items():
                write_tree(made / seed, tree)
            made.rename(kept)
        return {folder.name: read_tree(folder) for folder in sorted(kept.iterdir())}

    @cached_property
    def cycle(self) -> list[str]:
        """The reader of each input, again and again: as many as its weight, mixed."""
        order = [name for name in self.names for _ in range(ALL[name].weight)]
        random.Random(0).shuffle(order)
        return order

    @cached_property
    def whole(self) -> list[Case]:
        """The whole files, without those of forms that their reader refuses."""
        return [
            Case(name, seed, [], tree)
            for name, seeds in self.seeds.items()
            for seed, tree in seeds.items()
            if seed not in ALL[name].refused
        ]

    def case(self, seed: int, number: int) -> Case:
        """The input of a number; below 0 of whole files, -1 for the last of `whole`."""
        if number < 0:
            return self.whole[number]
        reader = ALL[self.cycle[number % len(self.cycle)]]
        rng = random.Random(f"{seed} {number}")
        name = rng.choice(list(self.seeds[reader.name]))
        tree = self.seeds[reader.name][name]
        if reader.forge is not None and rng.random() < FORGED:
            mutation, damaged = reader.forge(tree, rng)
            return Case(reader.name, name, [mutation], damaged)
        targets = [file for file in tree if any(fnmatch(Path(file).name, pattern) for pattern in reader.targets)]
        others = [content for other in self.seeds[reader.name].values() for content in other.values()]
        mutations, damaged = damage(tree, rng, targets, [c for c in others if isinstance(c, bytes)] + FOREIGN)
        return Case(reader.name, name, mutations, damaged)
