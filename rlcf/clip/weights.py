"""Reads files of weights from strangers: the tensors alone, without running code, in memory that the file bounds.

safetensors files are read by their own library. torch.save files, the old ones that are no zip archives too, and
TorchScript archives are read here, as data.
"""

import logging
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeVar, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rlcf.clip.unpickle import Unpickler, Unread
from rlcf.errors import UserError

SPARE_BYTES = 2**20
"""Bytes that tensors of a small file may take beyond what `SHARING` allows, for a tensor expanded from one number."""
SHARING = 4
"""Tensors may be views of the same numbers: together they take at most so many times the bytes of their file."""
MAX_RECORDS = 100_000
"""Records of an archive."""
MAX_LISTED = 50_000_000
"""Instructions of a pickle of features; those of COCO's 567,000 captions are 3 million."""
MAX_MODULES, MAX_DEPTH = 50_000, 50
"""Modules of a TorchScript archive, and how deep they lie in each other."""
MAX_NAMED = 20
"""Unread objects that the log names."""
CHUNK = 2**24
"""Bytes that are read at once, and the most that the directory and the pickle of an archive may have."""
LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
"""The first two pickles of a file that torch.save wrote before it wrote zip archives."""

SPARE_NUMBERS = 10**7
"""Numbers that a model may have beyond twice its file's: shared weights, masks."""

Model = TypeVar("Model", bound=nn.Module)

logger = logging.getLogger("rlcf")


def read_weights(file: Path) -> Any:
    """The content of a weight file, on the CPU. No code in it is run.

    Reads safetensors files, torch.save files and TorchScript archives. Returns the state dict of an archive, and of any
    other file its containers, numbers, texts and tensors. Other objects are `Unread`, and the log names them.
    Raises UserError for a file that is missing or damaged.
    """
    if not file.is_file():
        raise UserError(f"no weight file {file}")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        with file.open("rb") as stream:
            held, unread = _read_stream(stream, file.stat().st_size)
    except Exception as error:  # damaged bytes raise many kinds of errors
        reason = f" ({error})" if isinstance(error, pickle.UnpicklingError) else ""
        raise UserError(f"{file} is damaged or no weight file{reason}; download it again") from error
    if unread:
        more = f" and {len(unread) - MAX_NAMED} more" if len(unread) > MAX_NAMED else ""
        logger.info("%s: left unread: %s%s", file, ", ".join(sorted(unread)[:MAX_NAMED]), more)
    return held


WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "network", "net", "weights", "params", "clip"),
    *("ema_state_dict", "state_dict_ema", "model_ema", "ema"),
)
"""Names under which trainers keep a state dict beside their own state; an average of weights where nothing else is."""
PREFIX = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What DataParallel and torch.compile put before the names of weights."""
PARTS = ("model.", "clip.", "clip_model.", "net.", "network.")
"""Prefixes of weights' names in modules of trainers that hold a CLIP."""


def tensors_in(held: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, without `PREFIX`, and without one of `PARTS` that all of them have.

    held: from `read_weights`; a state dict, or a dict that holds one under a name of `WRAPPERS`. Returns no tensors of
    others.
    """
    for _ in WRAPPERS:  # one may lie in another, but not for ever
        inner = [held[key] for key in WRAPPERS if isinstance(held.get(key), dict)] if isinstance(held, dict) else []
        held = inner[0] if inner else held
    if not isinstance(held, dict):
        return {}
    tensors = {PREFIX.sub("", str(key)): value for key, value in held.items() if isinstance(value, Tensor)}
    part = next((part for part in PARTS if tensors and all(name.startswith(part) for name in tensors)), "")
    return {name.removeprefix(part): tensor for name, tensor in tensors.items()}


def require_finite(source: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises UserError naming the first tensor with a number that is NaN or infinite. source: the tensors' file."""
    for name, tensor in tensors.items():
        numbers = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor  # float8
        if not numbers.isfinite().all():
            raise UserError(f"the weights {name} of {source} are not finite (NaN or Inf); use an undamaged checkpoint")


def build_to_fit(build: Callable[[], Model], weights: Mapping[str, Tensor]) -> Model:
    """The result of `build`, a model that these weights are for, unless it is far larger than they are.

    A file of a few bytes may describe a model of terabytes. It is built without memory first, and its numbers counted.
    Raises ValueError for a model that is too large, and whatever `build` raises.
    """
    try:
        with torch.device("meta"), _Shapes(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # weights are not copied into it
            sketch = build()
    except RuntimeError as error:
        if not str(error).startswith("Tensor.item() cannot be called on meta"):
            raise
        return build()  # older models of timm compute with numbers while they are built
    described = sum(tensor.numel() for tensor in (*sketch.parameters(), *sketch.buffers()))
    held = sum(tensor.numel() for tensor in weights.values())
    if described > 2 * held + SPARE_NUMBERS:
        raise ValueError(f"a model of {described:,} numbers for weights of {held:,}")
    return build()


class _Shapes(TorchFunctionMode):
    """Tensors of the meta device have shapes alone: scaled, masked or filled with random numbers they are themselves.

    torch's own way with them imports its compiler, which takes a second.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        if func in (Tensor.mul, Tensor.div, Tensor.triu_) and isinstance(args[-1], int | float):
            return args[0]
        return (torch.empty if func is torch.randn else func)(*args, **given)


def read_pickle(stream: IO[bytes], size: int) -> tuple[Any, set[str]]:
    """The content of a plain pickle that may hold tensors, and the names of the objects that were left unread.

    size: of the pickle, bytes. Raises many kinds of exceptions for damaged pickles.
    """
    unread, left = set[str](), size

    def load_bytes(held: bytes) -> Any:
        """A tensor's numbers as pickle has them: a torch.save file of their own."""
        nonlocal left
        left -= len(held)
        if left < 0:
            raise pickle.UnpicklingError("numbers that are read again and again")
        numbers, others = _read_legacy(BytesIO(held), len(held))
        unread.update(others)
        return numbers

    unpickler = Unpickler(stream, None, _bound(size), load_bytes, MAX_LISTED)
    held = unpickler.load()
    return held, unread | unpickler.unread


def _read_stream(stream: IO[bytes], size: int) -> tuple[Any, set[str]]:
    """The content of a file that torch wrote, and the names of the objects that were left unread."""
    start = stream.read(4)
    stream.seek(0)
    return _read_archive(stream, size) if start == b"PK\x03\x04" else _read_legacy(stream, size)


def _bound(size: int) -> int:
    """The bytes that the tensors of a file of `size` bytes may take together."""
    return SHARING * size + SPARE_BYTES


def _fill(numbers: Tensor, stream: IO[bytes]) -> None:
    """Read a tensor's bytes, all of them. numbers: (N), uint8."""
    view, done = numbers.numpy().data, 0
    while done < len(view):
        count = stream.readinto(view[done : done + CHUNK])  # type: ignore[attr-defined]
        if not count:
            raise pickle.UnpicklingError("it is cut off")
        done += count


# ---- zip archives: torch.save and TorchScript ----


def _read_archive(stream: IO[bytes], size: int) -> tuple[Any, set[str]]:
    with zipfile.ZipFile(cast(IO[bytes], _Bounded(stream))) as archive:
        names = archive.namelist()
        if len(names) > MAX_RECORDS or len(set(names)) < len(names):
            raise pickle.UnpicklingError("too many records, or two of the same name")
        (main,) = (name for name in names if name.split("/", 1)[-1] == "data.pkl")
        folder, storages, left = main.removesuffix("data.pkl"), dict[str, Tensor](), size

        def find_storage(key: str, count: int, itemsize: int) -> Tensor:
            nonlocal left
            if key not in storages:
                record = _record(archive, f"{folder}data/{key}", left)
                left -= record.file_size
                storages[key] = torch.empty(record.file_size, dtype=torch.uint8)
                with archive.open(record) as opened:
                    _fill(storages[key], opened)
            return storages[key]

        order = f"{folder}byteorder"
        if order in names and archive.read(_record(archive, order, 10)) != b"little":
            raise pickle.UnpicklingError("its numbers are not little-endian")
        described = BytesIO(archive.read(_record(archive, main, min(size, CHUNK))))
        unpickler = Unpickler(described, find_storage, _bound(size))
        held = unpickler.load()
    if isinstance(held, Unread) and held.name.startswith("__torch__."):
        held, others = _state_dict(held, _bound(size))
        return held, others | unpickler.unread
    return held, unpickler.unread


class _Bounded:
    """A stream that reads `CHUNK` bytes at once at most: zipfile reads a directory of any length in one go."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, count: int = -1) -> bytes:
        if count > CHUNK:
            raise pickle.UnpicklingError("a directory that is too long")
        return self.stream.read(count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _record(archive: zipfile.ZipFile, name: str, most: int) -> zipfile.ZipInfo:
    """A record of an archive. Raises UnpicklingError for a compressed one, and one of more than `most` bytes.

    torch compresses no numbers, so that compressed ones are a way to fill the memory.
    """
    record = archive.getinfo(name)
    if record.compress_type != zipfile.ZIP_STORED or record.file_size > most:
        raise pickle.UnpicklingError("a record that is compressed or larger than its file")
    return record


def _state_dict(root: Unread, max_bytes: int) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of a TorchScript archive's modules by their paths, and the names of its other objects.

    max_bytes: of the tensors together, each as often as a module has it.
    """
    tensors, unread = dict[str, Tensor](), set[str]()
    count, left = 0, max_bytes

    def visit(module: Unread, path: str, depth: int) -> None:
        nonlocal count, left
        count += 1
        if count > MAX_MODULES or depth > MAX_DEPTH:
            raise pickle.UnpicklingError("modules without end")
        for name, value in module.state.items():
            if isinstance(value, Tensor):
                left -= value.nbytes
                if left < 0:
                    raise pickle.UnpicklingError("a tensor in too many modules")
                tensors[f"{path}{name}"] = value
            elif isinstance(value, Unread) and isinstance(value.state, dict):
                visit(value, f"{path}{name}.", depth + 1)
            elif isinstance(value, Unread):
                unread.add(value.name)

    if not isinstance(root.state, dict):
        return {}, {root.name}
    visit(root, "", 1)
    return tensors, unread


# ---- torch.save before it wrote zip archives ----


def _read_legacy(stream: IO[bytes], size: int) -> tuple[Any, set[str]]:
    storages, left = dict[str, Tensor](), size

    def find_storage(key: str, count: int, itemsize: int) -> Tensor:
        """Room for the numbers, which stand behind the pickle."""
        nonlocal left
        if key not in storages:
            left -= count * itemsize
            if left < 0:
                raise pickle.UnpicklingError("a tensor that is larger than its file")
            storages[key] = torch.empty(count * itemsize, dtype=torch.uint8)
            itemsizes[key] = itemsize
        return storages[key]

    itemsizes = dict[str, int]()
    unpickler = Unpickler(stream, find_storage, _bound(size))
    if [unpickler.load(), unpickler.load()] != [LEGACY_MAGIC, LEGACY_VERSION]:
        raise pickle.UnpicklingError("a pickle, but not of torch.save")
    unpickler.load()  # tells of the machine
    held, keys = unpickler.load(), unpickler.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or {*keys} != storages.keys():
        raise pickle.UnpicklingError("numbers that are not there")
    for key in keys:
        count = int.from_bytes(stream.read(8), "little")
        if count * itemsizes[key] != len(storages[key]):
            raise pickle.UnpicklingError("numbers that are not there")
        _fill(storages[key], stream)
    return held, unpickler.unread
