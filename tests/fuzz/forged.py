"""Files of a run that were changed on purpose, their checksums made anew: values of kinds that no run writes."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import safetensors.torch
import torch

from rlcf.digests import digest_of_tensors
from rlcf.run.carried import MEMORY_FILE
from rlcf.run.identity import Identity
from rlcf.run.record_lines import SUM, Record, checksum
from tests.fuzz.files import Tree
from tests.fuzz.trees import json_text, mark

Path = tuple[str | int, ...]
"""The keys that lead to a value of a record."""
GONE = object()
"""In place of a value that is left out."""
CAPTIONS = ("zero_shot", "adapted", "candidates", "reason")
"""Keys of texts of any content."""
MAY_LACK = ("zero_shot_reward", "adapted_reward", "views", "gated")
OTHERS = [None, True, "other", 7, [], [[1]], {}, {"a": 1}]
RAW = ("deep list", "open lists", "deep dict", "1e999", "-1e999", "NaN", "Infinity", "5000 digits", "400 digits")


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each value of a record, and the keys that lead to it; the record itself is the first."""
    yield path, value
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def wrong(path: Path, value: Any) -> list[Any]:
    """Values of other kinds than the one at a place of a record."""
    key = next((key for key in reversed(path) if isinstance(key, str)), "")
    found = [other for other in OTHERS if _kind(other) != _kind(value)]
    if _kind(value) == "number" or value is None:
        found += map(mark, RAW)
        if path[0] == "steps":  # a loss, a reward or an advantage may be none
            found = [other for other in found if other is not None and (value is not None or _kind(other) != "number")]
    if type(value) is int:
        found += [-1, 0.5, 2**63, 10**30, float(value)]
    elif key.endswith("_confidence"):
        found += [-0.5, 1.5]
    elif key == "seconds":
        found += [-1.0]
    if isinstance(value, str) and key not in CAPTIONS:
        found += [value + "x", ""]
    if isinstance(value, list) and value:
        found += [value + value[:1], *([value[:-1]] if path != ("steps",) else [])]
    if isinstance(value, dict):
        found += [value | {"more": 1}]
    if path and isinstance(path[-1], str) and key not in MAY_LACK:
        found.append(GONE)
    return found


def _kind(value: Any) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def changed(record: Record, path: Path, value: Any) -> bytes:
    """The line of a record with another value at a place of it."""
    if not path:
        return json_text(value)
    record = copy.deepcopy(record)
    parent: Any = record
    for key in path[:-1]:
        parent = parent[key]
    if value is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return json_text(record)


def forge(tree: Tree, rng: random.Random) -> tuple[str, Tree]:
    """A run's folder with a record, its row of logits or its method's memory of other kinds, and new checksums."""
    names = [name for name in tree if name.endswith(".jsonl") and tree[name]]
    memories = [name for name in tree if PurePosixPath(name).name == MEMORY_FILE]
    name = rng.choice([*names, *names, *names, *memories])
    return forge_memory(tree, name, rng) if name in memories else forge_record(tree, name, rng)


def forge_record(tree: Tree, name: str, rng: random.Random) -> tuple[str, Tree]:
    """name: of the file of records."""
    lines, rows = _bytes(tree, name).splitlines(), _rows(tree, name)
    number = rng.randrange(len(lines))
    line, row, record = lines[number], rows[number] if rows else b"", json.loads(lines[number])
    if row and name.endswith("part0.jsonl") and rng.random() < 0.15:
        kind, row = "a row of logits", _nan_in(row, rng)
    else:
        path, value = rng.choice(list(places(record)))
        line = changed(record, path, rng.choice(wrong(path, value)))
        kind = f"{'/'.join(key for key in path if isinstance(key, str)) or 'all'} of a record"
    return f"{name}: forged {kind}", tree | _with_line(tree, name, number, line, row)


def _with_line(tree: Tree, name: str, number: int, line: bytes, row: bytes) -> Tree:
    """The files in which another line or row stands, with its checksum."""
    stem, folder = name.removesuffix(".jsonl"), PurePosixPath(name).parent
    identity = json.loads(_bytes(tree, f"{folder}/identity.json"))
    key = Identity(identity["settings"], identity["contents"]).key
    lines, sums = _bytes(tree, name).splitlines(), bytearray(_bytes(tree, f"{stem}.sums"))
    lines[number] = line
    sums[SUM * number : SUM * (number + 1)] = checksum(key, line, row)
    found: Tree = {name: b"".join(line + b"\n" for line in lines), f"{stem}.sums": bytes(sums)}
    if f"{stem}.f32" in tree:
        rows = bytearray(_bytes(tree, f"{stem}.f32"))
        rows[len(row) * number : len(row) * (number + 1)] = row
        found[f"{stem}.f32"] = bytes(rows)
    return found


def _rows(tree: Tree, name: str) -> list[bytes]:
    """The rows beside the records of a file; none where there are none."""
    count, part = len(_bytes(tree, name).splitlines()), tree.get(f"{name.removesuffix('.jsonl')}.f32")
    if isinstance(part, bytes):
        width = len(part) // count
        return [part[width * i : width * (i + 1)] for i in range(count)]
    logits = tree.get(f"{PurePosixPath(name).parent}/logits.safetensors")
    if not isinstance(logits, bytes):
        return []
    held = safetensors.torch.load(logits)
    whole = torch.cat([held["zero_shot"], held["adapted"]], dim=1).numpy()
    return [row.tobytes() for row in whole]


def _nan_in(row: bytes, rng: random.Random) -> bytes:
    place = 4 * rng.randrange(len(row) // 4)
    return row[:place] + b"\x00\x00\xc0\x7f" + row[place + 4 :]


def forge_memory(tree: Tree, name: str, rng: random.Random) -> tuple[str, Tree]:
    """name: of the file of a method's memory."""
    content = _bytes(tree, name)
    state, told = safetensors.torch.load(content), dict(_metadata(content))
    kind = rng.choice(["gone", "more", "renamed", "shape", "type", "not finite", "updates", "count"])
    key = rng.choice(sorted(state))
    numbers = [key for key in sorted(state) if state[key].is_floating_point() and state[key].numel()]
    if kind == "gone":
        del state[key]
    elif kind == "more":
        state["more"] = torch.zeros(2)
    elif kind == "renamed":
        state["buffer.other"] = state.pop(key)
    elif kind == "shape":
        state[key] = rng.choice([state[key][None].clone(), torch.zeros(0), torch.zeros(3, 5)]).to(state[key].dtype)
    elif kind == "type":
        state[key] = state[key].to(rng.choice([torch.float64, torch.int8, torch.float16]))
    elif kind == "not finite":
        state[rng.choice(numbers)].view(-1)[0] = float("nan")
    elif kind == "updates":
        state["updates"] += rng.choice([-1, 1, -1000, 2**40])
    else:
        told["count"] = rng.choice(["-1", "0", "99", "9" * 5000, "1.5", "", "NaN", "-0x1"])
    told["tensors"] = digest_of_tensors(state)
    return f"{name}: forged {kind} of a memory", tree | {name: safetensors.torch.save(state, told)}


def _metadata(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]).get("__metadata__", {})


def _bytes(tree: Tree, name: str) -> bytes:
    content = tree[name]
    assert isinstance(content, bytes)
    return content
