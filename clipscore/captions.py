"""Candidate captions with their images and references: read from JSON files, matched by name, checked."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlcf.errors import UserError
from rlcf.run.data import IMAGE_ENDINGS
from rlcf.run.files import is_special

PREFIX = "A photo depicts "
"""The words before each caption for a CLIP (Hessel et al., EMNLP 2021, section 3)."""


@dataclass(frozen=True)
class Captions:
    """One entry a candidate, in the file's order. images: None when no folder was given; references: likewise."""

    names: list[str]
    candidates: list[str]
    images: list[Path] | None
    references: list[list[str]] | None


def read_json(file: str | Path) -> dict[str, Any]:
    """A JSON object. Raises UserError for a missing file, other content, or a name that stands twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in table if names.count(name) > 1)
            raise UserError(f"{file} names '{twice}' twice; keep one of them")
        return table

    try:
        if is_special(Path(file)):
            raise ValueError("it is a pipe or a device; write it into a file")
        found = json.loads(Path(file).read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{file} cannot be read as JSON ({reason})") from error
    if not isinstance(found, dict):
        raise UserError(f'{file} must hold a JSON object: {{"image name": ...}}')
    return found


def match_captions(
    candidates: Mapping[str, Any], image_dir: str | Path | None = None, references: Mapping[str, Any] | None = None
) -> Captions:
    """Find each candidate's image and references.

    candidates: image name -> caption; references: image name -> captions (or one), of more images than the candidates'
    if need be. A name is the image's path below image_dir; its suffix may be left out where only one image fits.
    Without an image_dir no image is looked for, which is enough for the metrics against references.
    Raises UserError naming the candidate that is empty, no text, or lacks its image or its references.
    """
    if not candidates:
        raise UserError('there is no candidate; give {"image name": "caption"} of at least one image')
    texts = [_text(caption, f"the candidate of '{name}'") for name, caption in candidates.items()]
    images = None if image_dir is None else _find_images(list(candidates), Path(image_dir))
    if references is None:
        return Captions(list(candidates), texts, images, None)
    known = Names(references)
    groups = []
    for name in candidates:
        key = known.find(name, "the references")
        group = references[key] if key is not None else []
        group = [group] if isinstance(group, str) else group
        if not isinstance(group, list | tuple):
            raise UserError(f"the references of '{name}' are no list of captions but {group!r:.60}")
        if not group:
            raise UserError(f"there are no references for candidate '{name}'; add them or take the candidate out")
        groups.append([_text(caption, f"a reference of '{name}'") for caption in group])
    return Captions(list(candidates), texts, images, groups)


class Names:
    """Image names that are found also without their suffix."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.without_suffix: dict[str, list[str]] = defaultdict(list)
        for name in sorted(self.names):
            self.without_suffix[_bare(name)].append(name)

    def find(self, name: str, where: str) -> str | None:
        """The name as it is, else the only one that has or lacks a suffix more; None when there is none.

        Raises UserError when several fit.
        """
        if name in self.names:
            return name
        if _bare(name) != name:
            return _bare(name) if _bare(name) in self.names else None
        fitting = self.without_suffix.get(name, [])
        if len(fitting) > 1:
            raise UserError(f"'{name}' fits {' and '.join(fitting)} of {where}; give the name with its suffix")
        return fitting[0] if fitting else None


def _bare(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in IMAGE_ENDINGS else name


def _find_images(names: Iterable[str], root: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"no image folder {root}")
    listed: dict[Path, Names] = {}
    images = []
    for name in names:
        image = root / name
        if not image.is_file():
            folder = image.parent
            if folder not in listed:
                files = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
                listed[folder] = Names(file for file in files if _bare(file) != file)
            found = listed[folder].find(image.name, str(folder))
            if found is None:
                raise UserError(f"there is no image {image} for its candidate; add it or take the candidate out")
            image = folder / found
        images.append(image)
    return images


def _text(caption: Any, called: str) -> str:
    """A caption with single spaces between its words. Raises UserError when it is none."""
    if not isinstance(caption, str):
        raise UserError(f"{called} must be a text and is {caption!r:.60}")
    text = " ".join(caption.encode("utf-8", "replace").decode("utf-8").split())
    if not text:
        raise UserError(f"{called} is empty; give a caption or take it out")
    return text
