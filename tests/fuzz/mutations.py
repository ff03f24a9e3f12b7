"""Mutations of the files of a folder, each by what stands in it. A `random.Random`, so a seed, decides them."""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.fuzz.bytes import damage_bytes
from tests.fuzz.files import SPECIALS, Content, Special, Tree
from tests.fuzz.tensors import damage_archive, damage_parquet, damage_pickle, damage_safetensors, damage_torch
from tests.fuzz.trees import damage_json, damage_lines, damage_yaml

BY_SUFFIX: dict[str, list[Callable[[bytes, random.Random], tuple[str, bytes]]]] = {
    ".json": [damage_json],
    ".jsonl": [damage_lines],
    ".txt": [damage_lines],
    ".yaml": [damage_yaml],
    ".safetensors": [damage_safetensors],
    ".pt": [damage_torch, damage_torch, damage_archive],
    ".bin": [damage_torch, damage_torch, damage_archive],
    ".script": [damage_archive],
    ".tar-50": [damage_torch, damage_torch, damage_archive],
    ".pkl": [damage_pickle],
    ".parquet": [damage_parquet],
    ".csv": [damage_lines],
}
"""A file's suffix -> the mutations of what stands in it."""


def damage(tree: Tree, rng: random.Random, targets: list[str], others: list[bytes]) -> tuple[list[str], Tree]:
    """A folder's files with one to three mutations of them. targets: those that are mutated; others: more files.

    Returns the mutations' names, each with its file's, and the files.
    """
    tree, done = dict(tree), []
    for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
        name = rng.choice(targets)
        kind, changed = damage_file(name, tree[name], rng, others)
        tree[name] = changed
        done.append(f"{name}: {kind}")
    return done, tree


def damage_file(name: str, content: Content, rng: random.Random, others: list[bytes]) -> tuple[str, Content]:
    """A mutation of one file: of what stands in it where its suffix tells that, else of its bytes."""
    if rng.random() < 0.03 or isinstance(content, Special):
        special = rng.choice(SPECIALS)
        return f"special {special.kind}", special
    known = BY_SUFFIX.get(Path(name).suffix, [])
    if known and rng.random() < 0.75:
        with suppress(Exception):  # a file that was mutated before is no such file any more
            kind, changed = rng.choice(known)(content, rng)
            if len(changed) < 50_000_000:
                return kind, changed
    return damage_bytes(content, rng, others)
