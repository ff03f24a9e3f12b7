"""The device and the precision that the settings mean on this machine."""

import os
import re

import torch

from rlcf.errors import UserError
from rlcf.run.config import Settings


def resolve_device(config: Settings, local_rank: int = 0) -> torch.device:
    """The device that `config.device` means on this machine. local_rank: number of the process on the machine.

    With `config.deterministic` a GPU computes deterministically from then on; call this before anything is on it.
    Raises UserError when it has no such device, or fewer GPUs than processes.
    """
    if config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    named = re.fullmatch(r"auto|cuda|cuda:(\d+)", config.device)
    if named is None:
        raise UserError(f"unknown device '{config.device}'; use auto, cpu or cuda:N")
    index, count = int(named[1] or local_rank), torch.cuda.device_count()
    if index >= count:
        fewer = f", or start at most {count} processes" if count and not named[1] else ""
        raise UserError(f"no GPU {index}: this machine has {count}; use --device cpu{fewer}")
    if config.deterministic:
        _compute_deterministically()
    return torch.device("cuda", index)


def _compute_deterministically() -> None:
    """Let CUDA use deterministic kernels alone, in this process. torch refuses an operation that has none."""
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in (":4096:8", ":16:8"):  # those that torch takes
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def resolve_precision(config: Settings, device: torch.device) -> str:
    if config.precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return config.precision
