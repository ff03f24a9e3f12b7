"""The device and the precision that the settings mean on this machine."""

import os
import re
import time

import torch

from rlcf.errors import UserError, say
from rlcf.run.config import Settings

PRODUCT = (64, 384, 384)
"""Rows, columns and depth of the product that is measured: some tokens and a layer of a small ViT."""
ENOUGH = 0.002
"""Processor seconds of products in one precision; one product at least."""
SLOWER = 1.1
"""Times the processor seconds in fp32 from which bf16 is called slower."""


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
    """The precision that `config.precision` means on this machine.

    Where the settings ask for bf16 and the device is a CPU that is slower in it than in fp32, that is said.
    """
    if config.bf16_flag and device.type == "cpu":
        times = seconds_of_product(torch.bfloat16) / seconds_of_product(torch.float32)
        if times >= SLOWER:
            say(f"{config.bf16_flag}: a product took {times:.1f} times fp32's processor time; on this CPU leave it out")
    if config.precision == "auto":
        return "fp16" if device.type == "cuda" else "fp32"
    return config.precision


@torch.no_grad()
def seconds_of_product(dtype: torch.dtype) -> float:
    """Processor seconds of a product of two matrices, in fp32 or under autocast to bf16: the quickest of a few."""
    rows, columns, depth = PRODUCT
    left, right = torch.ones(rows, depth), torch.ones(depth, columns)
    seconds: list[float] = []
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        torch.mm(left, right)  # the first one also prepares
        while sum(seconds) < ENOUGH:
            started = time.process_time()  # whatever else the machine does
            torch.mm(left, right)
            seconds.append(time.process_time() - started)
    return min(seconds)
