"""Downloads from a server on this machine that behaves as servers do on bad days."""

import fcntl
import hashlib
import os
import shutil
import signal
import time
from types import SimpleNamespace

import pytest

from rlcf.data.fetch import Patience, fetch
from rlcf.errors import UserError
from tests.server import QUICK
from tests.tools import wait_until

BODY = bytes(range(256)) * 4000
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def leftovers(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_file_is_fetched_and_nothing_else_is_left(server, tmp_path):
    file = tmp_path / "new" / "x.bin"
    fetch((server.put("x.bin", BODY),), file, SHA256, len(BODY), QUICK)
    assert file.read_bytes() == BODY and leftovers(file.parent) == ["x.bin"]


def test_a_transfer_that_breaks_off_goes_on_where_it_was(server, tmp_path):
    url = server.put("x.bin", BODY, cut=400_000)
    fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)
    assert (tmp_path / "x.bin").read_bytes() == BODY
    assert [asked for _, asked in server.asked] == [None, "bytes=400000-", "bytes=800000-"]


def test_a_transfer_that_stays_broken_keeps_what_has_come_and_the_same_call_goes_on(server, tmp_path):
    url = server.put("x.bin", BODY, cut=300_000)
    with pytest.raises(UserError, match="the same command goes on from there") as told:
        fetch((url,), tmp_path / "x.bin", SHA256, None, Patience(timeout=5, tries=1, pause=0))
    assert "300,000 bytes have come" in str(told.value) and not (tmp_path / "x.bin").exists()
    server.pages["/x.bin"].cut = None
    fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)
    assert server.asked[-1] == ("/x.bin", "bytes=300000-") and leftovers(tmp_path) == ["x.bin"]


def test_a_process_that_was_killed_after_the_last_byte_needs_no_byte_more(server, tmp_path):
    url = server.put("x.bin", BODY)
    (tmp_path / ".x.bin.part").write_bytes(BODY)
    (tmp_path / ".x.bin.part.from").write_text(f'{url}\n"1"')
    fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)
    assert server.asked == [("/x.bin", f"bytes={len(BODY)}-")] and (tmp_path / "x.bin").read_bytes() == BODY


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    url = server.put("x.bin", BODY, ranges=False)
    (tmp_path / ".x.bin.part").write_bytes(BODY[:1000])
    (tmp_path / ".x.bin.part.from").write_text(f'{url}\n"1"')
    fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)
    assert server.asked == [("/x.bin", "bytes=1000-")] and (tmp_path / "x.bin").read_bytes() == BODY


def test_a_file_that_changed_on_the_server_is_not_mixed_with_its_old_beginning(server, tmp_path):
    url = server.put("x.bin", BODY, etag='"2"')
    (tmp_path / ".x.bin.part").write_bytes(b"old" * 100)
    (tmp_path / ".x.bin.part.from").write_text(f'{url}\n"1"')
    fetch((url,), tmp_path / "x.bin", None, None, QUICK)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_a_beginning_that_nothing_is_known_of_is_not_gone_on_with_unless_a_checksum_will_tell(server, tmp_path):
    url = server.put("x.bin", BODY, etag="")
    for digest, asked in ((None, None), (SHA256, "bytes=1000-")):
        (tmp_path / ".x.bin.part").write_bytes(BODY[:1000])
        fetch((url,), tmp_path / "x.bin", digest, None, QUICK)
        assert server.asked[-1] == ("/x.bin", asked)


@pytest.mark.parametrize(
    ("digest", "size", "told"),
    [
        (f"sha256:{'0' * 64}", None, f"the checksum {SHA256} in place of sha256:0000"),
        (f"md5:{'0' * 32}", None, f"the checksum md5:{hashlib.md5(BODY).hexdigest()} in place of md5:0000"),
        (SHA256, 999, "1,024,000 bytes in place of 999"),
    ],
)
def test_another_content_is_refused_and_deleted(digest, size, told, server, tmp_path):
    with pytest.raises(UserError) as refused:
        fetch((server.put("x.bin", BODY),), tmp_path / "x.bin", digest, size, QUICK)
    assert told in str(refused.value) and "it was deleted" in str(refused.value) and leftovers(tmp_path) == []


def test_a_file_without_a_known_checksum_tells_the_one_it_has(server, tmp_path, capsys):
    fetch((server.put("x.bin", BODY),), tmp_path / "x.bin", None, None, QUICK)
    assert f"no published checksum of {server.url('x.bin')} is known; this file has {SHA256}" in capsys.readouterr().err


def test_an_address_without_the_file_is_not_asked_twice(server, tmp_path):
    with pytest.raises(UserError, match=r"x\.bin answers 404 \(Not Found\)$"):
        fetch((server.url("x.bin"),), tmp_path / "x.bin", SHA256, None, QUICK)
    assert len(server.asked) == 1 and leftovers(tmp_path) == []


def test_the_next_address_is_asked_where_one_is_dead(server, tmp_path):
    fetch((server.url("gone"), server.put("mirror", BODY)), tmp_path / "x.bin", SHA256, None, QUICK)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_a_busy_server_is_asked_again(server, tmp_path):
    fetch((server.put("x.bin", BODY, statuses=[503, 429]),), tmp_path / "x.bin", SHA256, None, QUICK)
    assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_told(server, tmp_path):
    url = server.put("x.bin", BODY, statuses=[503] * 9)
    with pytest.raises(UserError, match=r"answers 503 \(Service Unavailable\)"):
        fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)


def test_a_server_that_says_nothing_is_told_with_the_flag_that_waits_longer(server, tmp_path):
    url = server.put("x.bin", BODY, wait=3)
    with pytest.raises(UserError, match=r"said nothing for 0\.2 seconds; --timeout waits longer"):
        fetch((url,), tmp_path / "x.bin", SHA256, None, Patience(timeout=0.2, tries=1, pause=0))


def test_a_host_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"broke the connection|cannot be reached"):
        fetch(("http://127.0.0.1:9/x.bin",), tmp_path / "x.bin", SHA256, None, QUICK)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "/etc/hostname"])
def test_only_the_web_is_asked(url, tmp_path):
    with pytest.raises(UserError, match="is no web address"):
        fetch((url,), tmp_path / "x.bin", None, None, QUICK)


def test_a_web_page_in_place_of_a_file_is_refused(server, tmp_path):
    url = server.put("x.bin", b"<html>too large to scan</html>", kind="text/html; charset=utf-8")
    with pytest.raises(UserError, match="a web page in place of the file; open it in a browser"):
        fetch((url,), tmp_path / "x.bin", None, None, QUICK)
    assert leftovers(tmp_path) == []


def test_a_file_whose_length_the_server_does_not_tell_is_fetched(server, tmp_path):
    fetch((server.put("x.bin", BODY, length=False),), tmp_path / "x.bin", SHA256, len(BODY), QUICK)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_a_disk_without_room_is_told_before_the_first_byte(server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"has room for 1,000 bytes and x\.bin needs 1,024,000 more"):
        fetch((server.put("x.bin", BODY),), tmp_path / "x.bin", SHA256, None, QUICK)


def test_a_disk_that_fills_up_is_told_and_the_same_call_goes_on(server, tmp_path):
    url = server.put("x.bin", BODY)
    (tmp_path / ".x.bin.part").symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"cannot write .*x\.bin\.part \(No space left on device\); make room"):
        fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)
    (tmp_path / ".x.bin.part").unlink()
    fetch((url,), tmp_path / "x.bin", SHA256, None, QUICK)
    assert (tmp_path / "x.bin").read_bytes() == BODY


def test_two_processes_do_not_append_to_one_file(server, tmp_path):
    held = os.open(tmp_path / ".x.bin.part.lock", os.O_RDWR | os.O_CREAT)
    child = os.fork()  # a process's own lock does not stop it
    if child == 0:
        fcntl.lockf(held, fcntl.LOCK_EX)
        os.write(held, b"held")
        time.sleep(60)
        os._exit(0)
    try:
        assert wait_until(lambda: os.fstat(held).st_size, child)
        with pytest.raises(UserError, match=r"another process fetches x\.bin"):
            fetch((server.put("x.bin", BODY),), tmp_path / "x.bin", SHA256, None, QUICK)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(held)


def test_a_folder_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        fetch((server.put("x.bin", BODY),), tmp_path / "file" / "x.bin", SHA256, None, QUICK)
