import numpy as np
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
