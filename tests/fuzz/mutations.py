"""Mutations of files: of their bytes, of the trees of JSON, YAML and pickles, of tables of tensors, of archives.

A file is bytes, or a `Special` in its place. A mutation takes a `random.Random`, so that a seed decides it.
"""

import copy
import io
import json
import os
import pickle
import random
import re
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load, save
from torch import Tensor


@dataclass(frozen=True)
class Special:
    """What stands in the place of a file. kind: "pipe", "folder", "loop", "nothing" or a device's path."""

    kind: str


Content = bytes | Special
Tree = dict[str, Content]
"""The files of a folder by their paths in it."""

SPECIALS = [Special(kind) for kind in ("pipe", "folder", "loop", "nothing", "/dev/zero", "/dev/full")]

# ---- bytes ----

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


# ---- trees of JSON, YAML and pickles ----

RAW = {
    "deep list": "[" * 100_000 + "]" * 100_000,
    "open lists": "[" * 100_000,
    "deep dict": '{"a":' * 20_000 + "1" + "}" * 20_000,
    "1e999": "1e999",
    "-1e999": "-1e999",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "5000 digits": "9" * 5000,
    "400 digits": "9" * 400,
    "surrogate": '"\\ud800"',
    "words": "undefined",
    "control": '"a\nb"',
}
"""Pieces of JSON text that no Python value gives."""
RAW_YAML = {
    "alias": "&a [*a]",
    "object": "!!python/object/apply:os.system ['true']",
    "interpolation": "${steps}",
    "itself": "${a.b:c}",
    "environment": "${oc.env:HOME}",
    "missing": "???",
    "deep": "[" * 2000 + "]" * 2000,
    "bomb": "[&a [1,1,1,1,1,1,1,1,1], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]]",
    "date": "2001-02-30",
    "octal": "0o17",
    "sexagesimal": "190:20:30",
    "tag": "!unknown x",
    "block": "|\n    a\n  b",
    "inf": ".inf",
    "nan": ".nan",
    "tilde": "~",
    "colon": "a: b: c",
    "set": "!!set {a, b}",
    "binary": "!!binary gIGC",
}
TEXTS = [
    "",
    " ",
    "\n",
    "a\x00b",
    "\x1b[31mred",
    "\u202egnp",
    "../../etc/passwd",
    "/dev/zero",
    "\ufffe",
    "é" * 300,
    "a" * 100_000,
]
TEXTS += [
    "nan",
    "inf",
    "none",
    "true",
    "1e3",
    "-1",
    "0x10",
    "a b",
    "C:\\x",
    "~",
    "~nobody/x",
    "%s{0}",
    "\ud83d\ude00",
    "a/" * 3000,
]
NUMBERS = [0, 1, -1, 2, 7, 1000, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e-320, 1e308, 1.5]
NASTY = [None, True, False, *NUMBERS, *TEXTS, [], {}, [[]], [None], {"a": 1}, {"": None}, [1, "a", None], [[[[[[]]]]]]]


class Mark(str):
    """A text that stands for a piece of `RAW` or `RAW_YAML` until the tree is written."""


def mark(name: str) -> Mark:
    return Mark(f"\ue000{name}\ue000")


def damage_tree(
    tree: Any, rng: random.Random, raw: list[str], leaf: Callable[[Any], Any] | None = None
) -> tuple[str, Any]:
    """A copy of a tree of dicts and lists with one place of it changed.

    raw: names of the pieces of text that may stand in it. leaf: changes a leaf that is neither number nor text.
    """
    tree = copy.deepcopy(tree)
    holder: Any = [tree]  # the root is a place as any other
    parent, key = holder, 0
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.85:
        parent = parent[key]
        key = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    value = parent[key]
    kinds = [
        "value",
        "value",
        "value",
        "raw",
        "type",
        "wrap",
        "copy",
        "delete",
        "twice",
        "rename",
        "many",
        "text of it",
    ]
    if leaf is not None:
        kinds += ["leaf"] * 8
    kind = rng.choice(kinds)
    if kind == "leaf" and leaf is not None and not isinstance(value, dict | list | tuple):
        parent[key] = leaf(value)
    elif kind == "raw" and raw:
        parent[key] = mark(rng.choice(raw))
    elif kind == "type":
        parent[key] = _other_type(value)
    elif kind == "wrap":
        parent[key] = rng.choice([[value], {"a": value}, [value, value], {"state_dict": value}, [[value]]])
    elif kind == "copy":
        parent[key] = copy.deepcopy(_any_part(tree, rng))
    elif kind == "delete" and parent is not holder:
        del parent[key]
    elif kind == "twice" and isinstance(parent, dict) and isinstance(key, str):
        parent[f"{key}\ue001"] = rng.choice([value, None, 1, "x"])  # the same key again, where the format can say so
    elif kind == "twice" and isinstance(parent, list):
        parent.insert(key, value)
    elif kind == "rename" and isinstance(parent, dict):
        parent[rng.choice(["", "a", key if not isinstance(key, str) else key.upper(), "\x1b[2J", "\ud800", "é"])] = (
            parent.pop(key)
        )
    elif kind == "many" and isinstance(value, list) and len(value) < 50:
        parent[key] = value * 50
    elif kind == "text of it":
        parent[key] = str(value)[:1000]
    else:
        kind = "value"
        parent[key] = copy.deepcopy(rng.choice(NASTY))
    return f"tree {kind}", holder[0]


def _other_type(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "true"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return (
            list(value.items())
            if all(not isinstance(part, Tensor) for part in value.values())
            else list(value.values())
        )
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return 0


def _any_part(tree: Any, rng: random.Random) -> Any:
    while isinstance(tree, dict | list) and tree and rng.random() < 0.7:
        tree = tree[rng.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))]
    return tree


def _plain_keys(tree: Any) -> Any:
    """JSON's: keys are texts."""
    if isinstance(tree, dict):
        return {str(key): _plain_keys(value) for key, value in tree.items()}
    return [_plain_keys(part) for part in tree] if isinstance(tree, list | tuple) else tree


def json_text(tree: Any) -> bytes:
    """A tree as JSON, with its marks replaced."""
    text = json.dumps(_plain_keys(tree)).replace('\\ue001"', '"')
    return re.sub(r'"\\ue000([^"]*?)\\ue000"', lambda found: RAW[found[1]], text).encode()


def damage_json(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    kind, tree = damage_tree(json.loads(content), rng, list(RAW))
    return f"json {kind}", json_text(tree)


def damage_lines(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Lines of a text or of records, repeated, left out, joined, in another order, or with one damaged."""
    lines = content.split(b"\n")
    place = rng.randrange(len(lines))
    kind = rng.choice(["twice", "gone", "turned", "joined", "blank", "carriage", "value", "long", "space", "many"])
    if kind == "value":
        try:
            inner, lines[place] = damage_json(lines[place], rng)
            return f"line {inner}", b"\n".join(lines)
        except ValueError:
            lines[place] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
    elif kind in ("twice", "many"):
        lines[place:place] = [lines[place]] * (1 if kind == "twice" else 200)
    elif kind == "gone":
        del lines[place]
    elif kind == "turned":
        lines.reverse()
    elif kind == "joined":
        lines[place : place + 2] = [b"".join(lines[place : place + 2])]
    elif kind == "long":
        lines[place] *= 5000
    else:
        lines.insert(place, {"blank": b"", "carriage": b"\r", "space": b" \t\xc2\x85\xe2\x80\xa8"}[kind])
    return f"lines {kind}", b"\n".join(lines)


def damage_yaml(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    kind, tree = damage_tree(yaml.safe_load(content), rng, list(RAW_YAML))
    try:
        text = yaml.safe_dump(tree, allow_unicode=False)
    except yaml.YAMLError:  # what YAML cannot say
        text = json_text(tree).decode()
    text = text.replace('\\uE001"', '"').replace("\\uE001", "")
    text = re.sub(
        r'"?(?:\\uE000|\\ue000)([\w -]*?)(?:\\uE000|\\ue000)"?', lambda found: RAW_YAML.get(found[1], "x"), text
    )
    return f"yaml {kind}", text.encode()


# ---- tensors, and the files that hold them ----


def damage_tensor(tensor: Any, rng: random.Random) -> Any:
    """A tensor of another shape, type, layout or content, or no tensor."""
    if not isinstance(tensor, Tensor):
        return rng.choice([torch.ones(2), Path("x"), Namespace(a=1), np.float64(1), object, b"bytes", {1, 2}, 3 + 4j])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rng.choice(_TENSORS)(tensor)


def _filled(value: float) -> Callable[[Tensor], Tensor]:
    def fill(tensor: Tensor) -> Tensor:
        changed = (tensor if tensor.is_floating_point() else tensor.float()).detach().clone()
        changed.view(-1)[-1:] = value
        return changed

    return fill


_TENSORS: list[Callable[[Tensor], Any]] = [
    lambda t: t[:0] if t.dim() else t,
    lambda t: torch.empty(0),
    lambda t: torch.tensor(1.0),
    lambda t: torch.ones(1),
    lambda t: t.t() if t.dim() == 2 else t[None],
    lambda t: t.flatten(),
    lambda t: t[None],
    lambda t: t[..., :1] if t.dim() else t,
    lambda t: t[: len(t) // 2] if t.dim() else t,
    lambda t: torch.cat([t, t]) if t.dim() else t,
    lambda t: torch.ones(1).expand(t.shape),
    lambda t: torch.ones(1).expand(2**40),
    lambda t: torch.ones(3, 5),
    lambda t: torch.ones((1,) * 20),
    lambda t: t.half(),
    lambda t: t.double(),
    lambda t: t.to(torch.bfloat16),
    lambda t: t.to(torch.int64),
    lambda t: t.to(torch.bool),
    lambda t: t.to(torch.uint8),
    lambda t: t.to(torch.complex64),
    lambda t: t.to(torch.float8_e4m3fn),
    _filled(float("nan")),
    _filled(float("inf")),
    _filled(1e30),
    _filled(-1.0),
    lambda t: t * 0,
    lambda t: t.to("meta"),
    lambda t: t.to_sparse() if t.dim() else t,
    lambda t: torch.quantize_per_tensor(t.float(), 0.1, 1, torch.qint8),
    lambda t: torch.nn.Parameter(t.float()),
    lambda t: t.numpy() if t.dtype != torch.bfloat16 else t,
    lambda t: t.tolist() if t.numel() < 1000 else None,
]


def damage_torch(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A torch.save file whose content is another tree, or that is saved in another form."""
    held = torch.load(io.BytesIO(content), weights_only=False, map_location="cpu")
    kind, tree = damage_tree(held, rng, [], lambda leaf: damage_tensor(leaf, rng))
    form = rng.choice(["zip", "zip", "legacy", "safetensors"])
    flat = tree.get("state_dict", tree) if isinstance(tree, dict) else {}
    if form == "safetensors" and isinstance(flat, dict) and flat:
        try:
            return f"torch {kind} as safetensors", save({str(k): v.contiguous() for k, v in flat.items()})
        except Exception:  # what safetensors cannot say
            form = "zip"
    stream = io.BytesIO()
    torch.save(tree, stream, _use_new_zipfile_serialization=form != "legacy")
    return f"torch {kind} as {form}", stream.getvalue()


def damage_safetensors(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A safetensors file with another header, or with other tensors."""
    size = int.from_bytes(content[:8], "little")
    header, rest = content[8 : 8 + size], content[8 + size :]
    if rng.random() < 0.5:
        kind, text = damage_json(header, rng)
        return f"safetensors header {kind}", len(text).to_bytes(8, "little") + text + rest
    told = json.loads(header).get("__metadata__")
    if told and rng.random() < 0.3:
        name = rng.choice(list(told))
        try:
            kind, text = damage_json(told[name].encode(), rng)
            told = {**told, name: text.decode()}
        except ValueError:
            kind, told = "text", {**told, name: rng.choice(TEXTS)}
        return f"safetensors metadata {kind}", save(load(content), told)
    kind, tree = damage_tree(dict(sorted(load(content).items())), rng, [], lambda leaf: damage_tensor(leaf, rng))
    if not isinstance(tree, dict):
        tree = {"a": torch.ones(2)}
    tensors = {str(k).replace("\ue001", "."): v.contiguous().clone() for k, v in tree.items() if isinstance(v, Tensor)}
    try:
        return f"safetensors {kind}", save(tensors, told)
    except Exception:  # what safetensors cannot say
        stream = io.BytesIO()
        torch.save(tree, stream)
        return f"safetensors {kind} as zip", stream.getvalue()


def damage_archive(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A zip archive with a record that is damaged, renamed, compressed, left out, or there twice."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    place = rng.randrange(len(records))
    if rng.random() < 0.6:  # the pickle tells most
        place = next((i for i, (name, _) in enumerate(records) if name.endswith("data.pkl")), place)
    name, held = records[place]
    kind = rng.choice(["bytes", "bytes", "bytes", "bytes", "renamed", "compressed", "gone", "twice", "swapped"])
    if kind == "bytes":
        inner, held = damage_bytes(held, rng, [record for _, record in records])
        kind = f"record {inner}"
        records[place] = name, held
    elif kind == "renamed":
        records[place] = rng.choice(["../../x", "a", name + "0", "x/data.pkl", "a" * 60_000]), held
    elif kind == "gone":
        del records[place]
    elif kind == "twice":
        records.append((name, held[::-1]))
    elif kind == "swapped":
        records[place] = name, rng.choice(records)[1]
    how = zipfile.ZIP_DEFLATED if kind == "compressed" else zipfile.ZIP_STORED
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", how) as out:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, held in records:
            out.writestr(zipfile.ZipInfo(name), held, how)  # of no time, so that a seed decides every byte
    return f"archive {kind}", stream.getvalue()


def damage_pickle(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A pickle of another tree, in any protocol."""
    kind, tree = damage_tree(pickle.loads(content), rng, [], lambda leaf: damage_tensor(leaf, rng))
    return f"pickle {kind}", pickle.dumps(tree, rng.randrange(6))


# ---- files and folders ----

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
        try:
            kind, changed = rng.choice(known)(content, rng)
            if len(changed) < 50_000_000:
                return kind, changed
        except Exception as error:  # a file that was mutated before is no such file any more
            if not isinstance(error, ValueError | TypeError | RuntimeError | LookupError | EOFError | RecursionError):
                return f"bytes instead, {type(error).__name__}", damage_bytes(content, rng, others)[1]
    return damage_bytes(content, rng, others)


def write_tree(folder: Path, tree: Tree) -> None:
    """Write the files into a folder, and what stands in the place of some."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name, content)


def put(file: Path, content: Content) -> None:
    """Write a file, or what stands in its place. There must be nothing there."""
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content.kind == "pipe":
        os.mkfifo(file)
    elif content.kind == "folder":
        file.mkdir()
    elif content.kind == "loop":
        file.symlink_to(file)
    elif content.kind != "nothing":
        file.symlink_to(content.kind)


def read_tree(folder: Path) -> Tree:
    """The files of a folder, as `write_tree` wrote them."""
    tree: Tree = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_symlink():
            target = str(file.readlink())
            tree[name] = Special(target if target.startswith("/dev/") else "loop")
        elif file.is_fifo():
            tree[name] = Special("pipe")
        elif file.is_file():
            tree[name] = file.read_bytes()
        elif not any(file.iterdir()):
            tree[name] = Special("folder")
    return tree
