"""This process among those of a run under torchrun."""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import torch.distributed as dist

from rlcf.errors import UserError

TORCHRUN = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each of its processes, in their environment."""
MEETING = timedelta(minutes=30)
"""Timeout of the start: of a process that the others have not joined."""
PATIENCE = timedelta(days=30)
"""Timeout of processes that have joined: days, for one may be slow."""

GONE = "another process of this run has ended; its own line tells why, and when that is mended the same command goes on"
Result = TypeVar("Result")


@contextmanager
def _others_there(mistake: UserError | None = None) -> Iterator[None]:
    """In its body processes wait for each other. Raises UserError when one has ended: a mistake of this one's own, or
    that.
    """
    try:
        yield
    except RuntimeError as error:  # gloo's, with a traceback of its own
        raise mistake or UserError(GONE) from error


@dataclass(frozen=True)
class Shard:
    """The process's rank and the number of processes: 0 and 1 without torchrun.

    store: through which the processes count together; None for one process.
    """

    rank: int = 0
    count: int = 1
    store: Any = field(default=None, repr=False, compare=False)

    @staticmethod
    def from_environment() -> "Shard":
        """Joins torchrun's processes, of one machine or of several (gloo: they tell each other little).

        Raises UserError for an environment that torchrun does not make, and when the others do not come.
        """
        count, rank = _number("WORLD_SIZE"), _number("RANK")
        if (count or 1) == 1 and not rank:
            return Shard()
        missing = [name for name in TORCHRUN if not os.environ.get(name)]
        if missing or count is None or rank is None or rank >= count:
            told = ", ".join(f"{name}={os.environ[name]}" for name in TORCHRUN if os.environ.get(name))
            wrong = f"{' and '.join(missing)} lacking" if missing else "a RANK beyond WORLD_SIZE"
            raise UserError(f"the environment has {told}, with {wrong}; start with torchrun, or unset them")
        try:
            store, *_ = next(dist.rendezvous("env://", timeout=MEETING))
            if not dist.is_initialized():
                joined = dist.PrefixStore("gloo", store)
                dist.init_process_group("gloo", store=joined, rank=rank, world_size=count, timeout=PATIENCE)
        except (ValueError, RuntimeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"the {count} processes cannot meet ({said}); start them with torchrun") from error
        return Shard(rank, count, store)

    @property
    def local_rank(self) -> int:
        """Number of the process on its machine."""
        return _number("LOCAL_RANK") or 0

    @property
    def first(self) -> bool:
        """True in the process of rank 0, which writes the files that a run has once."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has called it. Raises UserError when one of them has ended."""
        if self.count > 1:
            with _others_there():
                dist.barrier()

    def let_first(self, work: Callable[[], object]) -> None:
        """Run `work` in the first process, while the others wait. Ends as `from_first`."""

        def without_result() -> None:
            work()

        self.from_first(without_result)

    def from_first(self, work: Callable[[], Result]) -> Result:
        """What `work` returns in the first process, in every process.

        When it raises UserError, the others end with the exit code of one and leave it to the first to tell. Raises
        UserError also when another process has ended.
        """
        mistake: UserError | None = None
        told: list[Any] = [None, None]
        if self.first:
            try:
                told = [True, work()]
            except UserError as error:
                mistake, told = error, [False, None]
        if self.count > 1:
            with _others_there(mistake):
                dist.broadcast_object_list(told)
            if not told[0] and not self.first:
                sys.exit(2)
        if mistake is not None:
            raise mistake
        result: Result = told[1]
        return result

    def numbers(self) -> Iterator[int]:
        """The numbers from 0 on, each of which one process alone gets: the one that asks first.

        Every process has to call it. Each call counts anew. The iterator raises UserError when the process has ended
        that counts.
        """
        if self.count == 1:
            return itertools.count()
        return self._counted(self.from_first(lambda: uuid4().hex))

    def _counted(self, name: str) -> Iterator[int]:
        while True:
            with _others_there():
                number = int(self.store.add(name, 1)) - 1
            yield number

    def to_first(self, pieces: Sequence[Any]) -> Iterator[Any]:
        """In the first process every process's pieces, one after the other; in the others nothing.

        Every process has to iterate over it. Pieces are what pickle takes, tensors on the CPU among it. Raises
        UserError when another process has ended.
        """
        if self.first:
            yield from pieces
            for rank in range(1, self.count):
                for _ in range(self._receive(rank)):
                    yield self._receive(rank)
        else:
            for message in (len(pieces), *pieces):
                with _others_there():
                    dist.send_object_list([message], dst=0)

    @staticmethod
    def _receive(rank: int) -> Any:
        message = [None]
        with _others_there():
            dist.recv_object_list(message, src=rank)
        return message[0]


def _number(name: str) -> int | None:
    """A number from 0 in the environment; None where there is none. Raises UserError for anything else."""
    text = os.environ.get(name, "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{name}={text} in the environment is no number of processes; start with torchrun, or unset it")
    return int(text) if text else None
