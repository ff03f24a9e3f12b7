"""Reads pickles as data. Nothing that a pickle names is imported, built or called.

The instructions of a pickle are read by `pickletools`. Containers, numbers and texts become Python's own, the calls
that rebuild tensors are recognised by name and done here, and any other object becomes an `Unread`. No instruction
recurses, and memory grows with the number of instructions alone.
"""

import math
import pickle
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import torch
from torch import Tensor

MAX_INSTRUCTIONS = 1_000_000
"""Instructions of a pickle of weights; those of ViT-L/14 with an optimiser's state are 0.1 million."""
MAX_DIMS = 25
"""Dimensions of a tensor."""
MAX_NAME = 500
"""Characters of a module's or a class's name."""

VALUES = {
    instruction.name
    for instruction in pickletools.opcodes
    if instruction.arg
    and [kind.name for kind in instruction.stack_after]
    in (["int_or_bool"], ["int"], ["float"], ["bytes_or_str"], ["bytes"], ["bytearray"], ["str"])
}
"""The instructions that push the number, text or bytes behind them."""

DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.QInt8Storage": torch.int8,
    "torch.QUInt8Storage": torch.uint8,
    "torch.QInt32Storage": torch.int32,
    "torch.storage.UntypedStorage": torch.uint8,
}
"""The names of storages -> the types of their numbers. Quantised tensors, whose numbers are integers, are unread."""


@dataclass(eq=False)
class Unread:
    """An object that was not built. name: of its class, or of the function that would make it; state: its content."""

    name: str
    state: Any = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Named:
    """A class or function that a pickle names."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """The numbers that tensors are views of, flat."""

    numbers: Tensor


FindStorage = Callable[[str, int, int], Tensor]
"""From a storage's key, its number of elements and their size in bytes to its bytes, a uint8 tensor."""


class Unpickler:
    """Reads one pickle at a time from a stream.

    find_storage: gives the bytes of a storage. max_bytes: bound of the bytes of all tensors together, each as often as
    the pickle puts it somewhere.
    load_bytes: reads a pickle within the pickle, as published features have them; None leaves those unread.
    unread: names of the objects that were left unread so far.
    """

    def __init__(
        self,
        stream: IO[bytes],
        find_storage: FindStorage | None = None,
        max_bytes: int = 0,
        load_bytes: Callable[[bytes], Any] | None = None,
        max_instructions: int = MAX_INSTRUCTIONS,
    ) -> None:
        self.stream, self.find_storage, self.load_bytes = stream, find_storage, load_bytes
        self.bytes_left, self.instructions_left = max_bytes, max_instructions
        self.unread: set[str] = set()
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The content of the next pickle: dicts, lists (sets, too), tuples, numbers, texts, tensors and `Unread`s.

        Raises UnpicklingError and other exceptions for damaged pickles.
        """
        self.stack, self.below, self.memo = [], [], {}
        for instruction, argument, _ in pickletools.genops(self.stream):
            self._spend(1)
            name = instruction.name
            if name in VALUES:
                self.stack.append(argument)
            elif name == "STOP":
                break
            else:
                self._do(name, argument)
        return self.stack.pop()

    def _spend(self, count: int) -> None:
        self.instructions_left -= count
        if self.instructions_left < 0:
            raise pickle.UnpicklingError("too many instructions")

    def _take(self, count: int) -> None:
        """Count bytes of tensors, or of texts that stand in many places: whoever reads them may copy them."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise pickle.UnpicklingError("a tensor that is larger than what is stored")

    def _again(self, item: Any) -> Any:
        """An item in one more place."""
        self._take(item.nbytes if isinstance(item, Tensor) else len(item) if isinstance(item, str | bytes) else 0)
        return item

    def _do(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self._again(self.memo[argument]))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE" | "LIST" | "FROZENSET":
                items = self._pop_mark()
                self.stack.append(tuple(items) if name == "TUPLE" else items)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(name[-1])
                if len(stack) < count:
                    raise pickle.UnpicklingError("an empty stack")
                stack[-count:] = [tuple(stack[-count:])]
            case "DICT":
                items = self._pop_mark()
                self.stack.append(_filled({}, items))
            case "APPEND":
                item = stack.pop()
                _extend(stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items = self._pop_mark()
                _extend(self.stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _filled(stack[-1], [key, value])
            case "SETITEMS":
                items = self._pop_mark()
                _filled(self.stack[-1], items)
            case "POP":
                stack.pop() if stack else self._pop_mark()
            case "POP_MARK":
                self._pop_mark()
            case "DUP":
                stack.append(self._again(stack[-1]))
            case "GLOBAL":
                stack.append(Named(_short(argument).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, first = stack.pop(), stack.pop()
                stack.append(Named(f"{_short(first)}.{_short(last)}"))
            case "INST":
                self._pop_mark()
                self.stack.append(self._left_unread(_short(argument).replace(" ", ".", 1)))
            case "OBJ":
                items = self._pop_mark()
                self.stack.append(self._call(items[0], tuple(items[1:])))
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                if name == "NEWOBJ_EX":
                    stack.pop()
                arguments, function = stack.pop(), stack.pop()
                stack.append(self._call(function, arguments))
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Unread):
                    stack[-1].state = state
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "PROTO" | "FRAME":
                pass
            case _:
                raise pickle.UnpicklingError(f"the instruction {name}")

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _left_unread(self, name: str) -> Unread:
        self.unread.add(name)
        return Unread(name)

    def _call(self, function: Any, arguments: Any) -> Any:
        """The result of a call that rebuilds a tensor or a dict; an `Unread` in place of any other result."""
        name = function.name if isinstance(function, Named) else "an object"
        if not isinstance(arguments, tuple):
            raise pickle.UnpicklingError("arguments that are no tuple")
        match name:
            case "collections.OrderedDict":
                pairs = arguments[0] if arguments else []
                self._spend(len(pairs))
                return _filled({}, [part for pair in pairs for part in (pair[0], pair[1])])
            case "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor":
                return self._tensor(*arguments[:4])
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
                return arguments[0]
            case "torch._tensor._rebuild_from_type_v2" if _rebuilds(arguments[0]):  # a parameter with attributes
                return self._call(arguments[0], arguments[2])
            case "torch.Size":
                return tuple(arguments[0][:MAX_DIMS])
            case "torch.storage._load_from_bytes" if self.load_bytes is not None:
                return self.load_bytes(arguments[0])
        if name.startswith("torch.jit._pickle."):  # a list or dict, and its type
            return arguments[0]
        if name.startswith("__torch__."):  # an object of a TorchScript archive: its modules are read from their states
            return Unread(name)
        return self._left_unread(name)

    def _storage(self, identity: Any) -> Any:
        """The storage that a pickle of torch.save refers to."""
        kind, *about = identity
        if kind == "module" and about:  # of pickled modules: the class and its source
            return about[0]
        if kind != "storage" or self.find_storage is None:
            raise pickle.UnpicklingError("a reference that is no storage")
        named, key, _, count = about[:4]
        dtype = DTYPES.get(named.name)
        if dtype is None or any(about[4:]):
            return self._left_unread(named.name)
        if not isinstance(key, str) or not _counts([count]):
            raise pickle.UnpicklingError("a storage's key or size")
        return Storage(self.find_storage(key, count, dtype.itemsize)[: count * dtype.itemsize].view(dtype))

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
        """A view of a storage, after a check that it lies in it."""
        if isinstance(storage, Unread):
            return Unread(storage.name)
        if not (isinstance(storage, Storage) and _counts([offset, *size, *stride]) and len(size) == len(stride)):
            raise pickle.UnpicklingError("a tensor's size")
        numbers, count = storage.numbers, math.prod(size)
        reach = offset + sum((sides - 1) * step for sides, step in zip(size, stride, strict=True)) + 1
        self._take(count * numbers.itemsize)
        if len(size) > MAX_DIMS or (count and reach > len(numbers)):
            raise pickle.UnpicklingError("a tensor that is larger than what is stored")
        return numbers.as_strided(size, stride, offset) if count else numbers.new_empty(size)


def _filled(target: Any, items: Sequence[Any]) -> Any:
    """The dict with keys and values added, which alternate in `items`. An `Unread` object stays as it is."""
    if not isinstance(target, dict | Unread) or len(items) % 2:
        raise pickle.UnpicklingError("items of what is no dict")
    if isinstance(target, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not (_is_key(key) or (isinstance(key, tuple) and len(key) <= MAX_DIMS and all(map(_is_key, key)))):
                raise pickle.UnpicklingError("a key that is neither number nor text")
            target[key] = value
    return target


def _is_key(key: Any) -> bool:
    """True for what is hashed in no time. Numbers of any length can be made to collide."""
    if isinstance(key, int):
        return abs(key) < 2**63
    return key is None or isinstance(key, str | bytes | float | Unread | Named)


def _extend(target: Any, items: Sequence[Any]) -> None:
    if not isinstance(target, list | Unread):
        raise pickle.UnpicklingError("items of what is no list")
    if isinstance(target, list):
        target.extend(items)


def _counts(numbers: Sequence[Any]) -> bool:
    return all(type(number) is int and 0 <= number < 2**63 for number in numbers)


def _rebuilds(function: Any) -> bool:
    return isinstance(function, Named) and function.name.startswith("torch._utils._rebuild_")


def _short(text: Any) -> str:
    """A part of a name. Raises UnpicklingError for anything else, and for one that is too long."""
    if not isinstance(text, str) or len(text) > MAX_NAME:
        raise pickle.UnpicklingError("a name")
    return text
