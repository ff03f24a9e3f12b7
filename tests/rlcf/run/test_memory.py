import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from rlcf.run import memory
from rlcf.run.memory import free_memory, peak_memory_mb

CPU = torch.device("cpu")


def test_the_peak_memory_of_a_process_counts_what_it_held():
    held = np.ones(2**24)  # 128 MB
    assert peak_memory_mb(CPU) > held.nbytes / 2**20


def test_free_memory_is_between_nothing_and_all_of_the_machine():
    pages = memory.os.sysconf("SC_PHYS_PAGES") * memory.os.sysconf("SC_PAGE_SIZE")
    assert 2**26 < free_memory(CPU) <= pages


def test_a_limit_of_the_process_counts(monkeypatch):
    numbers = {"meminfo": 2**34, "memory.max": 2**32, "memory.current": 2**30, "memory.stat": 2**29}
    monkeypatch.setattr(memory, "_number", lambda file, *_: numbers[file.name])
    assert free_memory(CPU) == 2**32 - 2**30 + 2**29
    numbers["memory.max"] = None
    assert free_memory(CPU) == 2**34


def test_numbers_of_system_files_are_read_and_words_are_none(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  9 kB\nMemAvailable:   3 kB\n")
    assert memory._number(file, "MemAvailable:", 1024) == 3072
    file.write_text("max\n")
    assert memory._number(file) is None and memory._number(tmp_path / "missing") is None


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_what_is_freed_is_kept_and_taken_again():
    """Page faults of the last of many rounds of four tensors of 12 MB: none where memory is kept.

    glibc needs some rounds until it has the room for a tensor that is aligned. By itself it learns from the first
    rounds to keep some blocks, in some processes all: an environment in which it learns nothing is what is compared to.
    """
    code = """
import resource, sys, torch
from rlcf.run.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(3 * 10**6) for _ in range(4)]
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    unlearning = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**17)}

    def faults(word):
        command = [sys.executable, "-c", code, word]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=unlearning).stdout)

    assert faults("keep") < 64 < faults("return")
