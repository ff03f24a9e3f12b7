"""The memory that is free, and the most that a process has used."""

import os
import resource
import sys
from pathlib import Path

import torch


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
