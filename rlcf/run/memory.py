"""The memory that is free, the most that a process has used, and what to lower when there is none left."""

import ctypes
import dataclasses
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rlcf.errors import UserError
from rlcf.failures import out_of_memory
from rlcf.run.config import Settings


def free_memory(device: torch.device) -> int:
    """Bytes that this process can still allocate.

    For a GPU, its free memory and what torch has reserved but not used. For the CPU, the lower of what the machine has
    available and what the process's control group (a container's limit) leaves.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    known = [_number(Path("/proc/meminfo"), "MemAvailable:", 1024)]
    group = Path("/sys/fs/cgroup")
    limit, used = (_number(group / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        cached = _number(group / "memory.stat", "inactive_file") or 0  # bytes of files, freed when memory is short
        known.append(max(limit - used + cached, 0))
    found = [number for number in known if number is not None]
    return min(found) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _number(file: Path, before: str = "", unit: int = 1) -> int | None:
    """The number in a system file, times `unit`. before: the word in front of the number.

    Returns None if the file or the number is missing.
    """
    try:
        lines = file.read_text().splitlines()
        found = next(line.removeprefix(before).split()[0] for line in lines if line.startswith(before))
        return int(found) * unit
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has used so far, MB: that of the GPU if `device` is one, else of the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3)."""
KEPT_BLOCK = 2**25
"""Bytes below which a block is kept when it is freed: twice the gradient of a ViT-L's largest layer."""


def keep_freed_memory() -> None:
    """Let this process keep what it frees on a CPU for its next tensors. Does nothing where the C library is not glibc.

    glibc gives large blocks back to the system at once, and the system clears every page of the next one: with an image
    tower's gradients and activations that is hundreds of thousands of pages a sample (docs/speed.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt:
        mallopt(M_TRIM_THRESHOLD, -1)  # the heap does not shrink
        mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK)  # smaller blocks are the heap's


@contextmanager
def out_of_memory_told(config: Settings) -> Iterator[None]:
    """A context in which running out of memory raises a UserError that names the flags to lower."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise UserError(f"out of memory; {_remedy(config)}") from error


def _remedy(config: Settings) -> str:
    """What to lower: a setting with which the run can go on, if there is one above 1, or else in another run."""
    may_change = {spec.name for spec in dataclasses.fields(config) if spec.metadata["may_change"]}
    named: dict[bool, list[str]] = {True: [], False: []}
    for name in config.takes_memory:
        value = getattr(config, name)
        if value is None or value > 1:
            now = "" if value is None else f" (now {value})"
            named[name in may_change].append(f"--{name.replace('_', '-')}{now}")
    if named[True]:
        return f"lower {' or '.join(named[True])}, then the same command continues"
    if named[False]:
        return f"lower {' or '.join(named[False])} and choose another --output"
    return "use a smaller model, or a machine or GPU with more memory"
