"""Models that come with the project: each a folder of `assets`, found by its name."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
ASSETS = next((path for path in (_PACKAGE / "assets", _PACKAGE.parent / "assets") if path.is_dir()), _PACKAGE)
"""In an installed package it lies inside of it, in a checkout beside it."""


def shipped_folder(name: str) -> Path | None:
    """The folder of the shipped model `name`; None when there is none."""
    return next((folder for folder in ASSETS.iterdir() if folder.name == name and folder.is_dir()), None)


def shipped_names(file: str) -> list[str]:
    """Names of the shipped models whose folder holds `file`."""
    return sorted(found.parent.name for found in ASSETS.glob(f"*/{file}"))
