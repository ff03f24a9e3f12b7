"""What befalls a run of a day: full disks, kills, signals, folders that go, too little memory, too few open files."""

import errno
import os
import random
import resource
import shutil
import signal

import pytest
import torch

import classification.main  # imported once, before processes are forked
from classification.classifier import Classifier
from rlcf.run import images
from tests import faults
from tests.faults import assert_stopped, assert_told, at_operation
from tests.tools import Results, write_pictures

assert classification.main
MODULE = "classification.main"
PARTS = 10
"""Parts of the places at which a run is disturbed. Each part is done in one run, which is taken up again each time."""


class Runs:
    """Runs of one command that are disturbed, then taken up again, and compared with an undisturbed one."""

    def __init__(self, flags):
        self.flags, self.folder = flags, flags[-1]
        self.count = faults.operations(MODULE, flags, self.folder)
        assert self.start().code == 0
        self.expected = self.left()

    def start(self, fault=lambda: None, *more, **how):
        return faults.command(MODULE, [*self.flags, *more], fault, **how)

    def places(self, part):
        """The places of a part, in any order."""
        return random.Random(0).sample(range(1, self.count + 1), self.count)[part::PARTS]

    def left(self):
        """The numbers and the names of the files that the run left."""
        results = Results(self.folder)
        logits = {name: rows.tolist() for name, rows in results.logits().items()}
        files = sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())
        return results.records(), logits, files

    def continues(self, *more):
        """Asserts that the same command finishes the run with the same numbers and files."""
        ended = self.start(lambda: None, *more)
        assert ended.code == 0, ended.printed
        assert self.left() == self.expected

    def has_no_temporaries(self):
        return [file.name for file in self.folder.rglob(".*")] in ([], [".lock"])


@pytest.fixture(scope="module")
def one_for_all(checkpoint, load_once, tmp_path_factory):
    """A small run with every kind of file: records, logits, a momentum state."""
    folder = tmp_path_factory.mktemp("faults")
    data = write_pictures(folder / "data", [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(2)])
    name = str(checkpoint("vit"))
    clip = load_once(name)
    flags = ["--student", name, "--reward", name, "--data", data, "--datasets", "folder", "--workers", "0"]
    flags += ["--views", "4", "--selection", "0.5", "--sample-k", "2", "--steps", "1", "--lr", "1e-3"]
    flags += ["--momentum", "--momentum-every", "2", "--save-logits", "--device", "cpu", "--output", folder / "run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlcf.run.setup.load_clip", lambda *_: clip)
        patch.setattr("rlcf.run.run.commit", lambda: None)
        yield Runs(flags)


@pytest.fixture
def runs(one_for_all):
    shutil.rmtree(one_for_all.folder, ignore_errors=True)
    return one_for_all


# ---- disks ----


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_disk_that_is_full_at_any_operation_is_one_sentence_and_the_same_command_goes_on(runs, part):
    assert runs.count > 20
    for place in runs.places(part):
        ended = runs.start(at_operation(place, runs.folder, faults.fails(errno.ENOSPC)))
        if ended.code:  # what was done before leaves fewer operations
            assert_told(ended, str(runs.folder), "No space left on device")
        assert runs.has_no_temporaries()
    runs.continues()


@pytest.mark.slow
def test_files_that_cannot_grow_are_one_sentence_and_the_same_command_goes_on(runs):
    for size in (0, 100, 700, 1200, 3000, 10000, 60000):
        ended = runs.start(faults.limits(resource.RLIMIT_FSIZE, size))
        assert_told(ended, str(runs.folder), "File too large", "make room there, then the same command continues")
        assert runs.has_no_temporaries()
    runs.continues()


def test_a_quota_and_a_disk_that_becomes_read_only_are_told(runs):
    for number in (errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO):
        shutil.rmtree(runs.folder, ignore_errors=True)  # a run that is done further has fewer operations
        ended = runs.start(at_operation(runs.count // 2, runs.folder, faults.fails(number)))
        assert_told(ended, str(runs.folder), os.strerror(number))
    runs.continues()


def test_an_output_folder_that_is_deleted_is_told(runs):
    for place in (runs.count // 3, runs.count // 2, runs.count - 4):
        ended = runs.start(at_operation(place, runs.folder, lambda path: shutil.rmtree(runs.folder, True)))
        assert_told(ended, str(runs.folder), "No such file or directory")
    runs.continues()


# ---- ends ----


@pytest.mark.slow
@pytest.mark.parametrize("part", [3, 4, 5])
def test_a_kill_at_any_operation_changes_no_result(runs, part):
    for place in runs.places(part):
        assert runs.start(at_operation(place, runs.folder, faults.sends(signal.SIGKILL))).code in (-signal.SIGKILL, 0)
    runs.continues()


@pytest.mark.slow
@pytest.mark.parametrize(("part", "name"), list(enumerate(["SIGINT", "SIGTERM", "SIGHUP"], start=6)))
def test_a_signal_at_any_operation_keeps_the_state_and_says_one_line_however_often_it_comes(runs, part, name):
    for place in runs.places(part):
        ended = runs.start(at_operation(place, runs.folder, faults.sends(getattr(signal, name))))
        if ended.code:
            assert_stopped(ended, name)
        assert runs.has_no_temporaries()
    runs.continues()


FAULTS = {name: faults.sends(getattr(signal, name)) for name in ("SIGKILL", "SIGINT", "SIGTERM", "SIGHUP")}
FAULTS |= {name: faults.fails(getattr(errno, name)) for name in ("ENOSPC", "EDQUOT")}


@pytest.mark.skipif("EVERY_FAULT" not in os.environ, reason="takes minutes: EVERY_FAULT=1 asks for it")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_at_each_operation_of_a_run_changes_no_result(runs, name):
    befell = 0
    for place in range(1, runs.count + 1):
        shutil.rmtree(runs.folder, ignore_errors=True)
        ended = runs.start(at_operation(place, runs.folder, FAULTS[name]))
        befell += ended.code != 0
        if name.startswith("E"):
            assert_told(ended, str(runs.folder), os.strerror(getattr(errno, name)))
        elif name != "SIGKILL":
            assert_stopped(ended, name)
        runs.continues()
    print(f"\n{name}: {befell} of {runs.count} places befell a run, and each went on with the same numbers")
    assert befell == runs.count


def test_a_signal_that_is_ignored_stays_ignored(runs):
    def hang_up():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        at_operation(10, runs.folder, faults.sends(signal.SIGHUP))()

    assert runs.start(hang_up).code == 0
    runs.continues()


def test_ctrl_c_reaches_the_processes_that_read_images_too_and_none_says_more_than_the_one_line(runs):
    def interrupt(path):
        if path.endswith("records.part0.jsonl"):
            for _ in range(3):
                os.killpg(0, signal.SIGINT)

    def in_a_group():
        os.setsid()
        at_operation(1, runs.folder, interrupt)()

    ended = runs.start(in_a_group, "--workers", "2")
    assert_stopped(ended, "SIGINT")
    assert len(ended.lines) == 1, ended.printed
    runs.continues()


# ---- memory, processes and open files ----


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "python"],
)
def test_memory_that_runs_out_in_an_episode_names_the_flag_to_lower(runs, monkeypatch, error):
    original, seen = Classifier.adapt, []

    def adapt(self, group):
        seen.append(group)
        if len(seen) == 3:
            raise error
        return original(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "adapt", adapt)
        assert_told(runs.start(), "out of memory; lower --views (now 4) and choose another --output")
    runs.continues()


def test_memory_that_the_system_refuses_is_one_sentence(runs):
    def little():
        with open("/proc/self/statm") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * resource.getpagesize()
        faults.limits(resource.RLIMIT_AS, used + (1 << 24))()

    assert_told(runs.start(little, "--views", "20000"), "out of memory; lower --views (now 20000)")


def test_a_killed_process_that_reads_images_is_told(runs, monkeypatch):
    original, main = images.read_image, os.getpid()

    def read_image(file, *given):
        if file.name == "1.png" and os.getppid() != main:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(file, *given)

    with monkeypatch.context() as patch:
        patch.setattr(images, "read_image", read_image)
        assert_told(runs.start(lambda: None, "--workers", "2"), "a process that reads images", "lower --workers")
    runs.continues()


def test_images_come_from_other_processes_without_shared_memory(runs, monkeypatch):
    def refuse(*_):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", refuse)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", refuse)
    runs.continues("--workers", "2")


def test_many_images_at_once_need_few_open_files(runs, tmp_path):
    data = write_pictures(tmp_path / "data", [f"{name}/{n}.png" for name in ("cat", "dog") for n in range(30)])
    flags = ["--data", data, "--tune", "prompt", "--no-momentum", "--images-at-once", "60", "--workers", "2"]
    ended = runs.start(faults.limits(resource.RLIMIT_NOFILE, 48), *flags)
    assert ended.code == 0, ended.printed


def test_too_few_open_files_are_one_sentence(runs):
    for count in range(8, 40, 6):
        ended = runs.start(faults.limits(resource.RLIMIT_NOFILE, count), "--workers", "2")
        if ended.code:
            assert_told(ended, "Too many open files")
    runs.continues()
