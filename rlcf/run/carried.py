"""What a method carries from one sample to the next, such as a momentum buffer, and the file that keeps it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor

from rlcf.digests import digest_of_tensors
from rlcf.errors import UserError
from rlcf.run.folder import logger
from rlcf.run.parts import Part
from rlcf.run.tensor_files import save_atomically

MEMORY_FILE = "momentum.safetensors"


class Memory(Protocol):
    """State that a method carries from one sample to the next, such as a momentum buffer.

    `with memory:` forgets it when it is left.
    """

    def __enter__(self) -> Any: ...

    def __exit__(self, *_: object) -> None: ...

    @property
    def updates(self) -> int:
        """Number of samples that have changed it."""

    @property
    def every(self) -> int:
        """Number of samples between two times that it is written to disk."""

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state, as tensors."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`; empty for a fresh memory. Raises ValueError for another one's."""


def save_memory(file: Path, memory: Memory, part: Part) -> None:
    """Write the memory to its file. part: the records that it has seen."""
    state = memory.state_dict()
    told = {"count": str(part.count), "seen": part.seen(part.count), "tensors": digest_of_tensors(state)}
    save_atomically(file, state, told)


def load_memory(file: Path, memory: Memory, part: Part) -> None:
    """Read the memory from its file, and cut from the part the records that came after it.

    Raises UserError for a file that is damaged, and for one that has seen other samples than the records tell of.
    """
    state, count, seen = _read(file) if file.exists() else ({}, 0, part.seen(0))
    if not 0 <= count <= part.count or seen != part.seen(count):
        raise UserError(
            f"{file} has seen {count} samples, which are not those of the {part.count} records beside it; delete it to "
            "start the dataset afresh"
        )
    if count < part.count:
        logger.info("%s: %d records came after the memory was kept and are done again", file.parent, part.count - count)
    part.cut(count)
    try:
        memory.load_state_dict(state)
    except ValueError as error:
        raise _damaged(file) from error
    if memory.updates != int(part.kept["episode"].sum()):
        raise _damaged(file)


def _read(file: Path) -> tuple[dict[str, Tensor], int, str]:
    """A memory's state, the number of records that it has seen, and their digest."""
    try:
        with safe_open(file, "pt") as held:
            state, told = {name: held.get_tensor(name) for name in held.keys()}, held.metadata() or {}  # noqa: SIM118
        if told["tensors"] != digest_of_tensors(state):
            raise ValueError
        return state, int(told["count"]), told["seen"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> UserError:
    return UserError(f"{file} is damaged; delete it to start the dataset afresh")
