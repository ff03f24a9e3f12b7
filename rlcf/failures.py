"""Failures of the world - disks, memory, processes that are gone - told in one sentence each."""

import errno
import os
import re

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAKE_ROOM = "make room there, then the same command continues"
_CHOOSE = "make it writable, or choose another place"
_REMEDIES = {
    **dict.fromkeys(NO_ROOM, _MAKE_ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _CHOOSE),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ESTALE), "put its folder back, or start afresh"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise 'ulimit -n' or lower --workers"),
}
"""What helps against an error of writing a file, by its number."""
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


def not_written(file: str | os.PathLike[str], error: Exception) -> str:
    """The sentence for a file that could not be written. error: an `OSError`, or a library's that repeats one."""
    number = _number(error)
    reason = os.strerror(number) if number else _last_line(error)
    return f"cannot write {os.fspath(file)} ({reason}); {_REMEDIES.get(number or 0, 'choose another place')}"


def out_of_memory(error: BaseException) -> bool:
    """True for an error of an allocation, in Python, in torch on the CPU, or on a GPU."""
    if isinstance(error, RuntimeError):
        return bool(re.search("out of memory|can't allocate memory|ALLOC_FAILED", str(error)))
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and _number(error) == errno.ENOMEM)


def sentence_of(error: BaseException) -> str | None:
    """The sentence for a failure that nobody nearer to it has told, or None for what is no failure of the world."""
    if out_of_memory(error):
        return "out of memory; use a smaller model, fewer --workers, or a machine or GPU with more memory"
    if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
        return f"a process that reads images was ended from outside ({_first_line(error)}); lower --workers"
    if isinstance(error, RuntimeError) and "does not have a deterministic implementation" in str(error):
        return f"{_first_line(error).split()[0]} has no deterministic kernel on this device; leave out --deterministic"
    if not isinstance(error, OSError):
        return None
    number = _number(error)
    reason = os.strerror(number) if number else _last_line(error)
    named = "a file" if error.filename is None else str(error.filename)
    if number in OUT_OF_FILES:
        return f"{named} cannot be opened ({reason}); {_REMEDIES[number]}"
    if number in _REMEDIES and error.filename is None and _REMEDIES[number] == _MAKE_ROOM:
        return f"the output cannot be written ({reason}); {_MAKE_ROOM}"
    return f"{named} cannot be used ({reason}); mend that, then the same command continues"


def _number(error: BaseException) -> int | None:
    """The number of an operating system's error, also of one that another process or library has passed on as text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))
    return int(found[1] or found[2]) if found else None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    return next(reversed(str(error).splitlines()), type(error).__name__)
