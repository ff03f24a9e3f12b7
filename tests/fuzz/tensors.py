"""Mutations of tensors, and of the files that hold them: torch.save, safetensors, archives, pickles, parquet."""

import io
import json
import pickle
import random
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from safetensors.torch import load, save
from torch import Tensor

from tests.fuzz.bytes import damage_bytes
from tests.fuzz.trees import TEXTS, damage_json, damage_tree


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


def damage_parquet(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A table with other columns or values, or with another description of them."""
    table = parquet.read_table(io.BytesIO(content))
    told = dict(table.schema.metadata or {})
    if b"huggingface" in told and rng.random() < 0.4:
        kind, told[b"huggingface"] = damage_json(told[b"huggingface"], rng)
        kind = f"description {kind}"
    else:
        kind, tree = damage_tree(table.to_pydict(), rng, [])
        table = pyarrow.table({str(name).replace("\ue001", " "): values for name, values in tree.items()})
    stream = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata(told), stream, row_group_size=rng.choice([1, 2, 100]))
    return f"parquet {kind}", stream.getvalue()
