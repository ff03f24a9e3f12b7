"""This process's part of a run under torchrun."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from rlcf.errors import UserError

TORCHRUN = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each of its processes, in their environment."""

GONE = "another process of this run has ended; its own line tells why, and when that is mended the same command goes on"


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
    """The process's rank and the number of processes: 0 and 1 without torchrun."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def from_environment() -> "Shard":
        """Joins torchrun's processes (gloo: they only wait for each other, the slowest one for days if need be).

        Raises UserError for an environment that torchrun does not make.
        """
        count, rank = _number("WORLD_SIZE"), _number("RANK")
        if (count or 1) == 1 and not rank:
            return Shard()
        missing = [name for name in TORCHRUN if not os.environ.get(name)]
        if missing or count is None or rank is None or rank >= count:
            told = ", ".join(f"{name}={os.environ[name]}" for name in TORCHRUN if os.environ.get(name))
            wrong = f"{' and '.join(missing)} lacking" if missing else "a RANK beyond WORLD_SIZE"
            raise UserError(f"the environment has {told}, with {wrong}; start with torchrun, or unset them")
        if not dist.is_initialized():
            try:
                dist.init_process_group("gloo", timeout=timedelta(days=30))
            except (ValueError, RuntimeError) as error:
                said = (str(error).splitlines() or [type(error).__name__])[0]
                raise UserError(f"the {count} processes cannot meet ({said}); start them with torchrun") from error
        return Shard(rank, count)

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
        """Run `work` in the first process, while the others wait.

        When it raises UserError, the others end with the exit code of one and leave it to the first to tell. Raises
        UserError also when another process has ended.
        """
        mistake: UserError | None = None
        if self.first:
            try:
                work()
            except UserError as error:
                mistake = error
        if self.count > 1 and dist.is_initialized():
            failed = [mistake is not None]
            with _others_there(mistake):
                dist.broadcast_object_list(failed)
            if failed[0] and not self.first:
                sys.exit(2)
        if mistake is not None:
            raise mistake


def _number(name: str) -> int | None:
    """A number from 0 in the environment; None where there is none. Raises UserError for anything else."""
    text = os.environ.get(name, "").strip()
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{name}={text} in the environment is no number of processes; start with torchrun, or unset it")
    return int(text) if text else None
