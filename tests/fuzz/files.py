"""The files of a folder as a value: their bytes, and what else stands in the place of some."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Special:
    """What stands in the place of a file. kind: "pipe", "folder", "loop", "nothing" or a device's path."""

    kind: str


Content = bytes | Special
Tree = dict[str, Content]
"""The files of a folder by their paths in it."""

SPECIALS = [Special(kind) for kind in ("pipe", "folder", "loop", "nothing", "/dev/zero", "/dev/full")]


def write_tree(folder: Path, tree: Tree) -> None:
    """Write the files into a folder, and what stands in the place of some."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        put(folder / name, content)


def put(file: Path, content: Content) -> None:
    """Write a file, or what stands in its place. There must be nothing there."""
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content.kind == "pipe":
        os.mkfifo(file)
    elif content.kind == "folder":
        file.mkdir()
    elif content.kind == "loop":
        file.symlink_to(file)
    elif content.kind != "nothing":
        file.symlink_to(content.kind)


def read_tree(folder: Path) -> Tree:
    """The files of a folder, as `write_tree` wrote them."""
    tree: Tree = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_symlink():
            target = str(file.readlink())
            tree[name] = Special(target if target.startswith("/dev/") else "loop")
        elif file.is_fifo():
            tree[name] = Special("pipe")
        elif file.is_file():
            tree[name] = file.read_bytes()
        elif not any(file.iterdir()):
            tree[name] = Special("folder")
    return tree
