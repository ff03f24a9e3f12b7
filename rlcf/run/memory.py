"""How much memory there is, and how much was used."""

import os
import resource
import sys
from pathlib import Path

import torch


def free_memory(device: torch.device) -> int:
    """Bytes that this process may still take: of the GPU, or of the machine and the limit it set for the process."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    known = [_number(Path("/proc/meminfo"), "MemAvailable:", 1024)]
    group = Path("/sys/fs/cgroup")
    limit, used = (_number(group / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        cached = _number(group / "memory.stat", "inactive_file") or 0  # of files; given back when needed
        known.append(max(limit - used + cached, 0))
    found = [number for number in known if number is not None]
    return min(found) if found else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _number(file: Path, before: str = "", unit: int = 1) -> int | None:
    """The number of a system file, or of its line that begins with a word; None where there is none."""
    try:
        lines = file.read_text().splitlines()
        found = next(line.removeprefix(before).split()[0] for line in lines if line.startswith(before))
        return int(found) * unit
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def peak_memory_mb(device: torch.device) -> float:
    """Most memory used so far, MB: of the GPU, or of this process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
