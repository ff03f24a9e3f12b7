"""This process's part of a run under torchrun."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from rlcf.errors import UserError

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

        Raises UserError where the environment names several processes that cannot be joined.
        """
        try:
            count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
            if count > 1 and not dist.is_initialized():
                dist.init_process_group("gloo", timeout=timedelta(days=30))
        except (ValueError, RuntimeError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"the processes of WORLD_SIZE {os.environ['WORLD_SIZE']} cannot join ({said}); start with torchrun, or "
                "unset WORLD_SIZE for one process"
            ) from error
        return Shard(rank, count)

    @property
    def local_rank(self) -> int:
        """Number of the process on its machine."""
        return int(os.environ.get("LOCAL_RANK", "0"))

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
