"""Opening a run folder: its lock, its config and its log; and what results tell of the code that made them."""

import logging
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from rlcf import __version__
from rlcf.errors import UserError, say
from rlcf.failures import NO_ROOM, not_written
from rlcf.run.config import Settings, command_line, to_yaml
from rlcf.run.files import is_special, write_atomically, writing
from rlcf.run.identity import check_settings
from rlcf.run.lock import LOCK_FILE, FolderLock
from rlcf.terminal import VisibleFormatter, visible

logger = logging.getLogger("rlcf")


@contextmanager
def open_run_folder(config: Settings, begun: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
    """Make the folder `config.output`, hold it for this process alone, keep the config in it, and open its log.

    begun: from the folder to those in it, or itself, that hold something begun; their settings must not have changed.
    The folder is free again when the context is left. Raises UserError when another process holds it, when it cannot
    be written, or when it holds a run with another config.
    """
    folder = Path(config.output)
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            refuse_special(folder)
            lock = held.enter_context(closing(FolderLock(folder)))
            for place in begun(folder):
                check_settings(place, config)
            write_atomically(folder / "config.yaml", to_yaml(config))
            _open_log(folder / LOG_FILE)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise UserError(not_written(folder, error)) from error
            raise UserError(
                f"cannot write to the run folder {folder} ({error.strerror}); choose another --output"
            ) from error
        if not lock.kept:
            logger.info("the file system of %s has no locks: start no second run on it", folder)
        yield folder


LOG_FILE = "log.txt"
GROWING = ("*.f32", "*.sums", "*/records*")
"""Files of a run that are written where they lie, as the lock and the log are."""


def refuse_special(folder: Path) -> None:
    """Raises UserError for a run folder with what must be neither read nor written.

    A pipe, a device or a socket may never end. Writing to a link would change a file elsewhere.
    """
    for file in folder.rglob("*"):
        if file.exists() and is_special(file):
            raise UserError(f"{file} is a pipe, a device or a socket and no file of a run; remove it")
    grown = [file for pattern in GROWING for file in folder.glob(pattern)]
    for file in (folder / LOCK_FILE, folder / LOG_FILE, *grown):
        if file.is_symlink():
            raise UserError(f"{file} is a link and no file of a run; remove it, or put the file itself there")


class _LogFile(logging.FileHandler):
    """A log whose failed writes are told as those of any other file; logging itself prints a traceback a line."""

    def handleError(self, record: logging.LogRecord) -> None:
        with writing(Path(self.baseFilename)):
            raise


def _open_log(file: Path) -> None:
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(VisibleFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # libraries print what reaches the root logger
    logger.info("command: %s", command_line())


def tell(line: str) -> None:
    """Put a line that a user should know on standard error and into the log."""
    say(visible(line))
    logger.info("%s", line)


def commit() -> str | None:
    """The git commit of a checkout that runs as it is, with "+" behind it where files were changed; else None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]
    status = [*git, "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        said = subprocess.run(status, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    head = said[0].removeprefix("# branch.oid ")
    return head + ("" if said[-1].startswith("#") else "+")  # lines about the branch, then one a changed file


@cache
def versions(packages: Iterable[str] = ("torch", "torchvision", "open_clip_torch", "transformers")) -> dict[str, str]:
    """Versions of Python, of this project and of the packages."""
    found = {"python": platform.python_version(), "rlcf": __version__}
    return found | {package: metadata.version(package) for package in packages}
