"""The lock of a run folder: one process, or those of one torchrun, write into it."""

import errno
import fcntl
import os
import re
import signal
import socket

import pytest

from rlcf.errors import UserError
from rlcf.run.lock import HOLDER, LOCK_FILE, FolderLock
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard
from tests.tools import forked, held, in_processes


def files(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_second_process_is_told_who_holds_the_folder_and_since_when(folder):
    with held(folder) as holder:
        before = files(folder)
        with pytest.raises(UserError) as error:
            Run(Config(output=str(folder)), Shard())
        assert files(folder) == before  # neither a config nor a line of the log
    host = re.escape(socket.gethostname())
    since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
    remedy = "wait until that run ends, or choose another --output"
    assert re.fullmatch(f"{folder} is in use by process {holder} on {host} {since}; {remedy}", str(error.value))


def test_a_process_that_was_killed_leaves_no_lock(folder):
    with held(folder):
        pass
    assert re.fullmatch(HOLDER, (folder / LOCK_FILE).read_text().strip())
    with Run(Config(output=str(folder)), Shard()) as run:
        assert f"process {os.getpid()} on" in (run.folder / LOCK_FILE).read_text()


def test_a_run_that_ended_in_any_way_leaves_no_lock(folder):
    with pytest.raises(ZeroDivisionError), Run(Config(output=str(folder)), Shard()):
        raise ZeroDivisionError
    with held(folder):
        pass
    with Run(Config(output=str(folder)), Shard()):
        pass
    with held(folder):
        pass


def test_workers_of_a_killed_process_do_not_hold_its_folder(folder):
    ready, begun = os.pipe()

    def start():
        folder.mkdir()
        lock = FolderLock(folder)
        os.write(begun, f"{forked(signal.pause)} ".encode())
        signal.pause()
        lock.close()

    child = forked(start)
    os.close(begun)  # so that reading ends with the child
    worker = int(os.read(ready, 100))
    try:
        with pytest.raises(UserError, match="is in use by process"):
            FolderLock(folder)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        FolderLock(folder).close()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_lock_file_of_any_content_is_replaced_and_never_printed(folder):
    folder.mkdir()
    (folder / LOCK_FILE).write_bytes(b"\x1b[31m\xff" * 1000)
    FolderLock(folder).close()
    assert re.fullmatch(HOLDER, (folder / LOCK_FILE).read_text().strip())
    with held(folder):
        (folder / LOCK_FILE).write_bytes(b"\x1b[31m process 3 on x since y")
        with pytest.raises(UserError, match=r"is in use by another process; wait"):
            FolderLock(folder)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks_is_told_in_the_log(folder, monkeypatch, number):
    def without(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", without)
    Run(Config(output=str(folder)), Shard())
    assert f"the file system of {folder} has no locks: start no second run" in (folder / "log.txt").read_text()


def test_a_folder_that_cannot_be_locked_for_another_reason_is_told(folder, monkeypatch):
    monkeypatch.setattr(fcntl, "lockf", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(UserError, match=r"cannot write to the run folder .* \(Input/output error\)"):
        Run(Config(output=str(folder)), Shard())


def test_processes_of_one_torchrun_belong_together_and_those_of_a_second_are_refused(folder, capfd):
    def start():
        with Run(Config(output=str(folder)), Shard.from_environment()) as run:
            run.shard.wait()

    assert in_processes(3, start) == [0, 0, 0]
    capfd.readouterr()
    with held(folder):
        assert in_processes(3, start) == [2, 2, 2]
    told = [line for line in capfd.readouterr().err.splitlines() if not line.startswith("[W")]
    assert len(told) == 1 and told[0].startswith(f"error: {folder} is in use by process ")
