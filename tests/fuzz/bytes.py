"""Mutations of bytes, whatever they are."""

import random
from collections.abc import Callable

NONSENSE = [b"", b"\x00", b"[" * 100_000, b"null", b"\xff\xfe\x00\n\x80", b"9" * 5000, b"\xef\xbb\xbf{}", b"\n" * 1000]


def damage_bytes(content: bytes, rng: random.Random, others: list[bytes]) -> tuple[str, bytes]:
    """Bytes with some flipped, set, cut, repeated, inserted; or cut off, joined with another file, or another file."""
    size = len(content)
    place = rng.randrange(size + 1)
    if rng.random() < 0.3:
        place = min(place, rng.randrange(200))  # headers stand at the beginning
    length = rng.choice([1, 1, 2, 4, 8, 100, size // 2])
    before, behind = content[:place], content[place + length :]
    found: dict[str, Callable[[], bytes]] = {
        "flip": lambda: (
            before + bytes(b ^ (1 << rng.randrange(8)) for b in content[place : place + 1]) + content[place + 1 :]
        ),
        "set": lambda: before + rng.randbytes(length) + behind,
        "large": lambda: before + rng.choice([b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x00" * 8]) + content[place + 4 :],
        "cut": lambda: before + behind,
        "zero": lambda: before + bytes(length) + behind,
        "repeat": lambda: before + content[place : place + length] * rng.choice([2, 3, 50]) + behind,
        "insert": lambda: (
            before + rng.choice([b"]}()RbQN02", b"\n", b"\x00", b"\x80", b'"', b"\\", b"1e999"]) + content[place:]
        ),
        "truncate": lambda: before,
        "head off": lambda: content[place:],
        "nonsense": lambda: rng.choice(NONSENSE),
        "twice": lambda: content + content,
        "joined": lambda: content + rng.choice(others),
        "swapped": lambda: rng.choice(others),
    }
    kind = rng.choice([*found, "flip"])
    return f"bytes {kind}", found[kind]()
