"""The lock of a run folder: one run at a time writes into it."""

import errno
import fcntl
import os
import re
import socket
from datetime import datetime
from pathlib import Path

from rlcf.errors import UserError

LOCK_FILE = ".lock"
HOLDER = r"process \d+ on [\w.:-]+ since [\w: +-]+"
"""The form of the line in a lock file, which tells who holds the folder."""


class FolderLock:
    """The lock of a folder, held by this process until `close` or until the process ends, in whatever way.

    It is the kernel's lock on the folder's file .lock. Processes that this one forks do not hold it. `kept` is False
    where the file system has no locks. Raises UserError naming the process that holds the folder, and OSError when the
    file cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self.kept = self._take(folder)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{_this_process()}\n".encode(), 0)
        except BaseException:
            self.close()
            raise

    def _take(self, folder: Path) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.pread(self._file, 500, 0).decode(errors="replace").strip()
                named = holder if re.fullmatch(HOLDER, holder) else "another process"
                raise UserError(
                    f"{folder} is in use by {named}; wait until that run ends, or choose another --output"
                ) from error
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                return False
            raise
        return True

    def close(self) -> None:
        """Release the lock."""
        os.close(self._file)


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} since {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}"
