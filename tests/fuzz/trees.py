"""Mutations of trees of dicts and lists, and of the texts that hold them: JSON, YAML, records a line."""

import copy
import json
import random
import re
from collections.abc import Callable
from typing import Any

import yaml
from torch import Tensor

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
