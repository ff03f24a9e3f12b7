"""Missing files, told before anything is imported, loaded or downloaded, with what brings them."""

from pathlib import Path

from rlcf.data.catalogue import known
from rlcf.data.command import own_command
from rlcf.errors import UserError
from rlcf.inputs.places import expanded

WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
"""Endings of the names of weight files. A CLIP's name that ends so is a path."""


def require_path(flag: str, path: str, what: str, remedy: str) -> None:
    """Raises UserError for a path where nothing is. flag: its setting; what: should be there; remedy: brings it."""
    if not Path(expanded(path)).exists():
        raise UserError(f"{flag}: there is no {what} {path}; {remedy}")


def require_clip(flag: str, name: str) -> None:
    """Raises UserError for a CLIP that is named by a path where there is nothing. flag: its setting.

    name: as `load_clip` takes it, also an architecture with the path of its weights, "ViT-B-32:epoch_10.pt".
    """
    architecture, _, weights = name.partition(":")
    path = weights if weights and architecture != "hf-hub" and not Path(expanded(name)).exists() else name
    if path.startswith(("/", "./", "../", "~")) or path.endswith(WEIGHTS):
        file = Path(path).name
        entry = known(file)
        get = f"'{own_command()} get {entry.name}' downloads it, or " if entry and entry.kind == "clip" else ""
        require_path(flag, path, "CLIP", f"{get}give a file, a folder, or a name such as ViT-B/16")
