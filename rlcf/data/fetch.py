"""Fetches a file from a server: resumed where it stopped, verified, and put in its place in one step.

No library does all three: pooch, torch.hub and torchvision start an interrupted file anew.
"""

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcf.errors import UserError, say
from rlcf.failures import not_written
from rlcf.progress import progress_bar

CHUNK = 1 << 18
"""Bytes that are read at once."""
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may be another one a moment later."""
HTML = (".html", ".htm")


@dataclass(frozen=True)
class Patience:
    """timeout: seconds that a server may say nothing. tries: attempts without a byte of progress. pause: seconds before
    the second attempt, doubled before each further one."""

    timeout: float = 30.0
    tries: int = 5
    pause: float = 1.0


USUAL = Patience()


class Gone(Exception):
    """An address does not give the file, and will not after a while either. The message tells why."""


class Broken(Exception):
    """The transfer broke off; the message tells why. anew: what has come is of no use."""

    def __init__(self, why: str, anew: bool = False) -> None:
        super().__init__(why)
        self.anew = anew


def fetch(
    urls: tuple[str, ...],
    file: Path,
    digest: str | None = None,
    size: int | None = None,
    patience: Patience = USUAL,
    label: str | None = None,
    quiet: bool = False,
) -> None:
    """Puts the file of an address at `file`.

    What has come of it lies beside it as .NAME.part until it is whole and verified; the same call goes on there, also
    in another process. urls: addresses of the same file; the next is asked where one does not give it. digest:
    "sha256:..." or "md5:...". size: bytes. label: name at the progress bar. quiet: no bar, and no word on a file
    without a known checksum.
    Raises UserError when no address gives the file, the transfer breaks off for good, the content is another, or the
    file cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    refused = []
    with _writing(part), _held(part):
        for url in urls:
            bar = progress_bar(desc=label or file.name, unit="B", unit_scale=True, total=size, disable=quiet)
            try:
                with bar:
                    _fetch(url, part, digest is not None, size, patience, bar)
                _verify(part, url, digest, size, quiet)
                part.replace(file)
                _about(part).unlink(missing_ok=True)
                return
            except (Gone, Broken) as failed:
                refused.append(f"{url} {failed}")
    kept = _length(part)
    more = f"; {kept:,} bytes have come: the same command goes on from there" if kept else ""
    more += "; --timeout waits longer" if "said nothing" in refused[-1] else ""
    raise UserError("; ".join(refused) + more)


def _fetch(url: str, part: Path, verified: bool, size: int | None, patience: Patience, bar: Any) -> None:
    """Appends to `part` until it is whole. Raises Gone, and Broken when it breaks off too often."""
    failures = 0
    while size is None or _length(part) != size:
        before = _length(part)
        try:
            _append(url, part, verified, patience, bar)
            return
        except Broken as broken:
            failures = 1 if _length(part) > before else failures + 1
            if broken.anew:
                part.unlink(missing_ok=True)
            if failures >= patience.tries:
                raise
            time.sleep(patience.pause * 2 ** (failures - 1))


def _append(url: str, part: Path, verified: bool, patience: Patience, bar: Any) -> None:
    """One request for what is missing of `part`. Raises Gone or Broken unless `part` is whole afterwards.

    verified: a digest of the file is known, so that bytes of another address may be gone on with.
    """
    if not url.startswith(("http://", "https://")):  # an address may come from a list that was downloaded
        raise Gone("is no web address")
    start = _length(part)
    headers = {"Accept-Encoding": "identity", "User-Agent": "rlcf-data"}
    if start:
        headers["Range"] = f"bytes={start}-"
        mark = _about(part).read_text() if _about(part).is_file() else ""
        source, _, validator = mark.partition("\n")
        if source == url and validator:
            headers["If-Range"] = validator
        elif not verified:  # nothing tells that it is the same file still
            start = 0
            del headers["Range"]
    with _answer(url, headers, patience) as answer:
        if answer is None:  # the server has nothing beyond what is there
            return
        if "html" in answer.headers.get("Content-Type", "") and not url.endswith(HTML):
            raise Gone("answers with a web page in place of the file; open it in a browser")
        if answer.status == 206:
            found = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if found != str(start):
                raise Broken("sent another part of the file than it was asked for", anew=True)
        else:
            start = 0
        validator = answer.headers.get("ETag", "")
        if validator.startswith("W/"):
            validator = ""
        _about(part).write_text(f"{url}\n{validator or answer.headers.get('Last-Modified', '')}")
        left = answer.headers.get("Content-Length")
        bar.total = start + int(left) if left else bar.total
        bar.initial = bar.n = bar.last_print_n = start  # so that the speed is of what comes now
        bar.refresh()
        _check_room(part, int(left) if left else 0)
        with part.open("ab" if start else "wb") as stream:
            for chunk in _chunks(answer, patience):
                stream.write(chunk)
                bar.update(len(chunk))
        if left and _length(part) < start + int(left):
            raise Broken("broke the connection")


@contextmanager
def _answer(url: str, headers: dict[str, str], patience: Patience) -> Iterator[http.client.HTTPResponse | None]:
    """A server's answer; None where it says that nothing is missing (416). Raises Gone or Broken."""
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=patience.timeout)
    except urllib.error.HTTPError as error:
        with error:
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if error.code == 416 and headers.get("Range") == f"bytes={whole}-":
                yield None
                return
            if error.code == 416 or error.code in BUSY:
                raise Broken(f"answers {error.code} ({error.reason})", anew=error.code == 416) from error
            raise Gone(f"answers {error.code} ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise Broken(_why(error, patience)) from error
    with answer:
        yield answer


def _chunks(answer: http.client.HTTPResponse, patience: Patience) -> Iterator[bytes]:
    """The bytes of an answer. Raises Broken where they stop."""
    while True:
        try:
            chunk = answer.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise Broken(_why(error, patience)) from error
        if not chunk:
            return
        yield chunk


def _why(error: Exception, patience: Patience) -> str:
    """Why a transfer broke, in words."""
    reason: Any = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"said nothing for {patience.timeout:g} seconds"
    if isinstance(reason, ConnectionError | http.client.HTTPException):
        return "broke the connection"
    return f"cannot be reached ({getattr(reason, 'strerror', None) or reason})"


def _verify(part: Path, url: str, digest: str | None, size: int | None, quiet: bool) -> None:
    """Raises UserError, and removes the file, if its size or digest is another. Without a digest it is told so."""
    have = _length(part)
    wrong = f"{have:,} bytes in place of {size:,}" if size is not None and have != size else ""
    if digest and not wrong:
        found = digest_of_file(part, digest.partition(":")[0])
        wrong = f"the checksum {found} in place of {digest}" if found != digest else ""
    if wrong:
        part.unlink()
        _about(part).unlink(missing_ok=True)
        raise UserError(
            f"{url} gave a file with {wrong}; it was deleted: start again, and if that happens twice the server has "
            "another file now"
        )
    if not digest and not quiet:
        found = digest_of_file(part, "sha256")
        say(f"no published checksum of {url} is known; this file has {found}")


def digest_of_file(file: Path, kind: str = "sha256") -> str:
    """The digest of a file, "sha256:..." or "md5:..."."""
    computed = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            computed.update(chunk)
    return f"{kind}:{computed.hexdigest()}"


def _check_room(part: Path, needed: int) -> None:
    """Raises UserError if the disk has fewer free bytes than `needed`."""
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise UserError(
            f"{part.parent} has room for {free:,} bytes and {part.name.strip('.').removesuffix('.part')} needs "
            f"{needed:,} more; make room there, then the same command continues"
        )


@contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Makes the folder of a file. An `OSError` of its body is told with the file and the remedy."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(not_written(part, error)) from error


@contextmanager
def _held(part: Path) -> Iterator[None]:
    """The lock of a download: two processes must not append to one file. Raises UserError where another holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    lock = os.open(part.with_name(f"{part.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UserError(f"another process fetches {part.name.strip('.').removesuffix('.part')}") from error
        try:
            yield
        finally:
            part.with_name(f"{part.name}.lock").unlink(missing_ok=True)
    finally:
        os.close(lock)


def _about(part: Path) -> Path:
    """The file that tells where a part is from, and which version of it."""
    return part.with_name(f"{part.name}.from")


def _length(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
