"""Commands that end early: signals during their imports, and outputs that nobody reads."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlcf.errors import run_main
from rlcf.start import start
from tests.faults import assert_stopped, command, forked
from tests.tools import ROOT, wait_until, write_pictures

HOUSE = ("rlcf", "classification", "retrieval", "caption", "clipscore", "demo", "tests/fuzz")
COMMANDS = {
    "classification/main.py": "--datasets folder",
    "retrieval/main.py": "--datasets json:list",
    "caption/main.py": "--datasets json:list --checkpoint demo-clipcap --language-model demo-lm",
    "clipscore/main.py": "",
    "caption/train.py": "--language-model demo-lm",
    "caption/extract_features.py": "--captions list.json",
    "demo/world.py": "",
}
"""Script -> what brings it, with a folder that holds anything, past its settings to the import of torch."""


@pytest.fixture
def folder(tmp_path):
    """Two class folders, a list of captions and candidates."""
    write_pictures(tmp_path, ["cat/0.png", "dog/1.png"])
    images = ("cat/0.png", "dog/1.png")
    (tmp_path / "list.json").write_text(json.dumps([{"image": image, "caption": ["a", "b"]} for image in images]))
    (tmp_path / "candidates.json").write_text(json.dumps(dict.fromkeys(images, "a")))
    return tmp_path


@pytest.mark.slow
def test_a_signal_during_the_imports_of_any_command_is_one_line(folder):
    names = ["SIGINT", "SIGTERM", "SIGHUP"]
    started = []
    for number, (script, flags) in enumerate(COMMANDS.items()):
        words = ["-m", script[:-3].replace("/", ".")] if script.startswith("demo/") else [script]
        where = {"demo/world.py": [folder / "world"], "clipscore/main.py": [folder / "candidates.json", folder]}
        words += [*flags.split(), *where.get(script, ["--data", folder, "--output", folder / "run", "--sample-k", "1"])]
        if script in ("caption/train.py", "caption/extract_features.py"):
            words = words[:-2]
        process = subprocess.Popen(
            [sys.executable, *map(str, words)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append((process, names[number % 3]))
        wait_until_torch_is_imported(process)
        process.send_signal(getattr(signal, names[number % 3]))
    for process, name in started:
        out, err = process.communicate(timeout=60)
        by = "" if name == "SIGINT" else f" by {name}"
        assert (out, err) == ("", f"\nstopped{by}; the same command continues where it was\n")
        assert process.returncode == 128 + getattr(signal, name)


def wait_until_torch_is_imported(process):
    """Until a library of torch is in the process's memory: its imports have begun, and take a second more."""
    maps = Path(f"/proc/{process.pid}/maps")
    assert wait_until(lambda: "libtorch" in maps.read_text(), process.pid)


def test_a_signal_in_the_work_ends_a_command_with_its_code():
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        assert_stopped(forked(lambda name=name: run_stopped(name)), name)


def run_stopped(name):
    sys.modules["stopped"] = type(sys)("stopped")
    sys.modules["stopped"].main = lambda: os.kill(os.getpid(), getattr(signal, name))
    start("stopped")


def test_an_output_that_nobody_reads_ends_a_command_quietly():
    def work():
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 1)
        run_main(lambda: print("n 1"))

    ended = forked(work)
    assert (ended.code, ended.printed) == (141, "")


def test_an_output_on_a_full_disk_is_one_sentence():
    def work():
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        run_main(lambda: print("n 1"))

    ended = forked(work)
    assert ended.code == 2
    assert ended.last.startswith("error: the output cannot be written (No space left on device); make room")


def test_the_help_is_that_of_the_command():
    import classification.main  # imported once, before the process is forked

    assert classification.main
    ended = command("classification.main", ["--help"])
    assert ended.code == 0 and ended.printed.startswith("usage: main.py [--config FILE] [flags]")


def test_what_each_command_starts_has_a_main():
    sources = [file.read_text() for folder in HOUSE for file in (ROOT / folder).rglob("*.py")]
    started = {name for source in sources for name in re.findall(r'^ +start\("([\w.]+)"\)', source, re.M)}
    assert {"classification.main", "demo.study.main", "tests.fuzz.command"} <= started
    assert all(callable(importlib.import_module(module).main) for module in started)


def test_a_process_that_start_has_started_is_a_commands_own(tmp_path):
    (tmp_path / "said.py").write_text("import rlcf.start\n\ndef main():\n    print(rlcf.start.started())\n")
    code = "from rlcf.start import start, started; print(started()); start('said')"
    where = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    said = subprocess.run([sys.executable, "-c", code], env=where, capture_output=True, text=True, check=True).stdout
    assert said.split() == ["False", "True"]
