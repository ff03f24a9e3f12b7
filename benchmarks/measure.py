"""Measure two callables in turn, in one process: seconds, peak memory, FLOPs, and how far apart their answers are."""

import ctypes
import gc
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from rlcf.clip.backbone import Backbone
from rlcf.clip.passes import Passes
from rlcf.linear import has_kernel, multiply

Call = Callable[[], Any]
Counted = dict[str, str]
"""Name of a CLIP -> its passes in one call, in words."""


@dataclass(frozen=True)
class Measurement:
    """Seconds of each call, one a repeat; peak memory, MB; FLOPs and passes of one call.

    ..._gflops: GFLOP/s of `GemmRate` during each call.
    difference: the largest one of what the two return; moved: how far adaptation moves the reference's logits, where it
    returns them before and after. None: not measured.
    """

    reference_seconds: list[float]
    fast_seconds: list[float]
    reference_gflops: list[float]
    fast_gflops: list[float]
    reference_mb: float | None = None
    fast_mb: float | None = None
    reference_flops: int | None = None
    fast_flops: int | None = None
    difference: float | None = None
    moved: float | None = None
    reference_passes: Counted = field(default_factory=dict)
    fast_passes: Counted = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        """The quotients of the two sides' seconds, one a pair of calls."""
        return [slow / fast for slow, fast in zip(self.reference_seconds, self.fast_seconds, strict=True)]


def measure(
    reference: Call,
    fast: Call,
    repeats: int | None,
    device: torch.device,
    *,
    warm: bool = True,
    compare: bool = True,
    clips: Mapping[str, Backbone] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Measurement:
    """Call the two in turn: reference, fast, reference, fast, ...

    repeats: pairs of calls; None for five, or three where the first pair takes a minute or more. clips: name -> a CLIP
    whose passes are counted, where FLOPs are. dtype: of the products that `GemmRate` times.

    Each returns a tensor, or a tuple of tensors: logits, or logits before and after. Untimed, the fast one is called
    twice before, to warm up and to count its FLOPs, and the reference once, for both. With warm=False, for calls of
    minutes, the reference is not: its FLOPs are counted in the first timed call, at microseconds an operation.
    compare: keep what the two return and compare it.
    Memory is all that the process holds at its peak during a call (on CUDA what torch allocated), models included: for
    the reference during its first call, before any of the fast path's, for the fast path the higher of its two untimed
    ones. Freed memory goes back to the system before each of these, which costs them time; other calls are left alone.
    """
    rate = GemmRate(device, dtype)
    slow, quick = _Side(reference, device, compare, rate), _Side(fast, device, compare, rate)
    slow_watched, quick_watched = (partial(side.run, watched=True) for side in (slow, quick))
    reference_flops, reference_passes = _counted(slow_watched, clips) if warm else (0, {})
    fast_flops, fast_passes = _counted(quick_watched, clips, first=quick_watched)
    done, wanted = 0, repeats or 5
    while done < wanted:
        if done or warm:
            slow.run()
        else:
            reference_flops, reference_passes = _counted(slow_watched, clips)
        quick.run()
        done += 1
        if repeats is None and slow.seconds[-1] + quick.seconds[-1] >= 60:
            wanted = 3
    return Measurement(
        reference_seconds=slow.seconds[-done:],
        fast_seconds=quick.seconds[-done:],
        reference_gflops=slow.gflops[-done:],
        fast_gflops=quick.gflops[-done:],
        reference_mb=min(slow.peaks_mb, default=None),
        fast_mb=max(quick.peaks_mb, default=None),
        reference_flops=reference_flops,
        fast_flops=fast_flops,
        difference=largest_difference(slow.result, quick.result) if compare else None,
        moved=largest_difference(*slow.result) if compare and isinstance(slow.result, tuple) else None,
        reference_passes=reference_passes,
        fast_passes=fast_passes,
    )


def _counted(call: Call, clips: Mapping[str, Backbone] | None, first: Call | None = None) -> tuple[int, Counted]:
    """FLOPs and passes of a call. What `first` does, before it, is not counted, but passes through its graphs are."""
    passes = {name: Passes() for name in clips or {}}
    with ExitStack() as stack:
        for name, clip in (clips or {}).items():
            stack.enter_context(passes[name].counting(clip))
        if first:
            first()
            for counted in passes.values():
                counted.reset()
        flops = count_flops(call)
    return flops, {name: str(found) for name, found in passes.items()}


class GemmRate(TorchDispatchMode):
    """Times products of square matrices before, during and after a block, with torch's threads: the machine's limit.

    Another process on the machine changes that limit by a half from one second to the next, so on a CPU it is measured
    between the block's operations as well, every `EVERY` seconds. To look at each operation costs some microseconds; a
    block that is `short` is left alone.

    gflops: of those products, GFLOP/s. between: the seconds that those during the block took.
    """

    EVERY = 0.5
    SIDES: ClassVar = {"cpu": 1536, "cuda": 8192}

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.side = self.SIDES[device.type]
        self.device, self.dtype, self.short = device, dtype, False
        self.gflops, self.between = 0.0, 0.0
        self._matrices: list[Tensor] = []
        self._seconds: list[float] = []
        self._last, self._looks = 0.0, False

    def __enter__(self) -> "GemmRate":
        self._make()
        self._seconds, self.between = [], 0.0
        self._multiply()
        self._looks = self.device.type == "cpu" and not self.short
        if self._looks:
            super().__enter__()
        else:
            self._matrices = []  # large, and none of the block's memory
        return self

    def __exit__(self, *error: Any) -> None:
        if self._looks:
            super().__exit__(*error)
        else:
            self._make()
        self._multiply()
        self._matrices = []
        self.gflops = 2 * self.side**3 * len(self._seconds) / sum(self._seconds) / 1e9

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if time.perf_counter() - self._last > self.EVERY:
            self.between += self._multiply()
        return func(*args, **(kwargs or {}))

    def _make(self) -> None:
        shape = (self.side, self.side)
        self._matrices = [torch.randn(shape, device=self.device).to(self.dtype) for _ in range(3)]
        self._multiply()  # wakes threads and caches
        self._seconds.pop()

    def _multiply(self) -> float:
        left, right, product = self._matrices
        _wait(self.device)
        started = time.perf_counter()
        with _disable_current_modes():  # whoever counts the block's FLOPs does not count these
            torch.mm(left, right, out=product)
        _wait(self.device)
        self._last = time.perf_counter()
        self._seconds.append(self._last - started)
        return self._seconds[-1]


SHORT = 4 * GemmRate.EVERY
"""Seconds of a call below which the products before and after it tell the machine's limit."""


def square_rates() -> dict[str, float]:
    """GFLOP/s of torch.mm and of oneDNN's product, where torch has it, of square matrices in fp32 on a CPU."""
    side = GemmRate.SIDES["cpu"]
    left, right = torch.randn(side, side), torch.randn(side, side)
    kernels = {"torch.mm": torch.mm} | ({"oneDNN": multiply} if has_kernel(left) else {})
    seconds: dict[str, list[float]] = {name: [] for name in kernels}
    for _ in range(10):
        for name, kernel in kernels.items():
            started = time.perf_counter()
            kernel(left, right)
            seconds[name].append(time.perf_counter() - started)
    return {name: 2 * side**3 / median(times) / 1e9 for name, times in seconds.items()}


@dataclass
class _Side:
    """One of the two callables, and what was seen of its calls."""

    call: Call
    device: torch.device
    keep: bool
    rate: GemmRate
    seconds: list[float] = field(default_factory=list)
    gflops: list[float] = field(default_factory=list)
    peaks_mb: list[float] = field(default_factory=list)
    result: Any = None

    def run(self, watched: bool = False) -> None:
        """Call it once. watched: see the peak of its memory."""
        self.result = None
        gc.collect()
        self.rate.short = bool(self.seconds) and self.seconds[-1] < SHORT
        with self.rate as rate:
            told = watched and forget_peak(self.device)
            started = time.perf_counter()
            result = self.call()
            _wait(self.device)
            self.seconds.append(time.perf_counter() - started - rate.between)
            if told:
                self.peaks_mb.append(peak_mb(self.device))
        self.gflops.append(rate.gflops)
        if self.keep:
            self.result = result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


CLEAR = Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> bool:
    """From now on `peak_mb` tells the peak of what comes. Returns False where the system cannot (CPU, not Linux)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if not os.access(CLEAR, os.W_OK):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's: what was freed goes back to the system
    if trim:
        trim(0)
    CLEAR.write_text("5")
    return True


def peak_mb(device: torch.device) -> float:
    """Most memory held since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    kilobytes = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return int(kilobytes[1]) / 2**10 if kilobytes else float("nan")


def largest_difference(first: Any, second: Any) -> float:
    """Absolute, of two tensors or of two tuples of tensors."""
    if isinstance(first, Tensor):
        return float((first - second.to(first)).abs().max())
    return max(largest_difference(a, b) for a, b in zip(first, second, strict=True))


def count_flops(call: Call) -> int:
    """Floating-point operations of matrix products, convolutions and attention in one call, backward passes included.

    A multiplication and an addition are two. Not counted: what is done element by element (normalisation, activations,
    softmax, the optimiser's step) and image processing. Masked attention counts as if nothing was masked.
    """
    aten = torch.ops.aten
    missing = {  # torch's own table has attention on CUDA only, and not oneDNN's product
        torch.ops.mkldnn._linear_pointwise: _linear_flops,
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
        aten._native_multi_head_attention: _whole_attention_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=missing) as counter:
        call()
    return counter.get_total_flops()


Shape = tuple[int, ...]


def _linear_flops(x: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]


def _attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward_flops(out: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(out, query, key, value)


def _whole_attention_flops(query: Shape, key: Shape, value: Shape, width: int, heads: int, *_: Any, **__: Any) -> int:
    """nn.MultiheadAttention without a graph: the projections are part of the kernel. query: (N, L, width)."""
    n, length, _width = query
    per_head = (n, heads, length, width // heads)
    return 2 * n * length * width * 4 * width + sdpa_flop_count(per_head, per_head, per_head)
