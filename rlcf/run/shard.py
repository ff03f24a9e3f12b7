"""This process's part of a run under torchrun."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from rlcf.errors import UserError


@dataclass(frozen=True)
class Shard:
    """The process's rank and the number of processes: 0 and 1 without torchrun."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def from_environment() -> "Shard":
        """Joins torchrun's processes (gloo: they only wait for each other, the slowest one for days if need be)."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count > 1 and not dist.is_initialized():
            dist.init_process_group("gloo", timeout=timedelta(days=30))
        return Shard(int(os.environ.get("RANK", "0")), count)

    @property
    def local_rank(self) -> int:
        """Number of the process on its machine."""
        return int(os.environ.get("LOCAL_RANK", "0"))

    @property
    def first(self) -> bool:
        """True in the process of rank 0, which writes the files that a run has once."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when every process has called it."""
        if self.count > 1:
            dist.barrier()

    def let_first(self, work: Callable[[], object]) -> None:
        """Run `work` in the first process, while the others wait.

        When it raises UserError, the others end with the exit code of one and leave it to the first to tell.
        """
        mistake: UserError | None = None
        if self.first:
            try:
                work()
            except UserError as error:
                mistake = error
        if self.count > 1 and dist.is_initialized():
            failed = [mistake is not None]
            dist.broadcast_object_list(failed)
            if failed[0] and not self.first:
                sys.exit(2)
        if mistake is not None:
            raise mistake
