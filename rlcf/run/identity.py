"""The identity of a run: its settings, and digests of the lists, names and weights that it was begun with.

It is kept in identity.json, in the folder of what was begun: of a dataset, of a training, of an extraction.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.run.config import Settings
from rlcf.run.files import write_atomically

IDENTITY_FILE = "identity.json"


@dataclass(frozen=True)
class Identity:
    """settings: those that must not change, paths in full. contents: name of a list or model -> digest."""

    settings: dict[str, Any]
    contents: dict[str, str]

    @cached_property
    def key(self) -> bytes:
        """A digest of the identity, 32 bytes: the key of the checksums of all that belongs to the run."""
        return bytes.fromhex(digest_of([self.settings, self.contents]))


def fixed_settings(config: Settings) -> dict[str, Any]:
    """The settings that a run goes on with unchanged, as JSON holds them. A path that exists is an absolute one."""
    fixed = {}
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if not spec.metadata["may_change"]:
            fixed[spec.name] = _in_full(value) if spec.metadata["path"] else value
    return fixed


def check_settings(folder: Path, config: Settings) -> None:
    """Raises UserError when what is in the folder was begun with other settings, or when nothing tells with which.

    folder: one that holds something begun.
    """
    before, now = read_identity(folder).settings, fixed_settings(config)
    changed = sorted(name for name in now if not _equal(before.get(name), now[name]))
    if changed:
        changes = ", ".join(f"{key} ({before.get(key)} -> {now[key]})" for key in changed)
        raise UserError(f"{config.output} holds a run with another config: {changes}; choose another --output")


def keep_identity(folder: Path, config: Settings, contents: Mapping[str, str], begun: bool) -> None:
    """Write identity.json into a folder, or compare with it.

    begun: True where the folder holds something that was begun. Raises UserError when that was begun with other
    settings or contents.
    """
    if not begun:
        identity = Identity(fixed_settings(config), dict(contents))
        write_atomically(folder / IDENTITY_FILE, json.dumps(dataclasses.asdict(identity), indent=1) + "\n")
        return
    check_settings(folder, config)
    before = read_identity(folder).contents
    changed = [name for name in {**before, **contents} if before.get(name) != contents.get(name)]
    if changed:
        names = ", ".join(changed)
        raise UserError(f"{folder} was begun with other {names} than there are now; choose another --output")


def read_identity(folder: Path) -> Identity:
    """The identity in a folder. Raises UserError when it is missing or damaged."""
    file = folder / IDENTITY_FILE
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        identity = Identity(dict(held["settings"]), dict(held["contents"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        wrong = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise UserError(
            f"{file} is {wrong}, and nothing else tells what {folder} was begun with; delete {folder} to start it "
            "afresh, or choose another --output"
        ) from error
    return identity


def _in_full(value: Any) -> Any:
    """A path that exists, as an absolute one; the paths of a list likewise; anything else as it is."""
    if isinstance(value, list):
        return [_in_full(part) for part in value]
    if not isinstance(value, str) or not value:
        return value
    path = Path(value).expanduser()
    return str(path.absolute()) if path.exists() else value


def _equal(before: Any, now: Any) -> bool:
    """True for two equal values, and for two paths of one file or folder."""
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return all(_equal(*pair) for pair in zip(before, now, strict=True))
    if before == now or not isinstance(before, str) or not isinstance(now, str):
        return bool(before == now)
    first, second = Path(before), Path(now)
    absolute = first.is_absolute() and second.is_absolute()
    return absolute and first.exists() and second.exists() and first.samefile(second)
