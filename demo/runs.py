"""Runs the entry scripts of the real experiments, two at a time, and reads what they leave."""

import contextlib
import importlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

SHIPPED = ("demo-student", "demo-reward")
"""The student and the reward model that come along."""


def two_at_a_time() -> ProcessPoolExecutor:
    """Two processes of one thread each."""
    return ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))


def run_script(package: str, flags: Sequence[str]) -> str:
    """Run the script of a task, or of another package, here. Returns what it prints, but for its progress."""
    main, printed = importlib.import_module(f"{package}.main").main, io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        main([*flags])
    return printed.getvalue()


def read_results(run: Path) -> dict[str, Any]:
    """Dataset -> its metrics."""
    return json.loads((run / "results.json").read_text(encoding="utf-8"))["datasets"]


def read_records(run: Path, dataset: str) -> list[dict[str, Any]]:
    """A record a sample of a dataset."""
    file = run / dataset.replace(":", "-") / "records.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
