"""Candidate captions with their images and references: read from JSON files, matched by name, checked."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from rlcf.errors import UserError
from rlcf.inputs.folders import image_suffixes
from rlcf.inputs.json_files import as_id, as_text, shown
from rlcf.inputs.lists import ID_KEYS, IMAGE_KEYS, CaptionedImage, captions_in, read_list
from rlcf.inputs.places import forms, is_there, with_slashes
from rlcf.inputs.sources import Source

RESULT = '{"image_id": id, "caption": text}'
FORMS = f'{{"image name": "caption"}} or [{RESULT}, ...]'

PREFIX = "A photo depicts "
"""The words before each caption for a CLIP (Hessel et al., EMNLP 2021, section 3)."""


@dataclass(frozen=True)
class Captions:
    """One entry a candidate, in the file's order. images: None when no folder was given; references: likewise.

    A candidate without words, as a captioner may generate one, is an empty text.
    """

    names: list[str]
    candidates: list[str]
    images: list[Source] | None
    references: list[list[str]] | None

    @property
    def empty(self) -> list[int]:
        """Places of the candidates without words."""
        return [place for place, text in enumerate(self.candidates) if not text]


def read_references(file: str | Path) -> list[CaptionedImage]:
    """The references in a file, in any form of `read_captions`: {"image name": captions}, COCO's annotations, ...

    Raises UserError as `read_captions`.
    """
    held = read_list(Path(file))
    if held == {} or held == []:
        return []
    return captions_in(held, str(file))


def read_candidates(file: str | Path, references: Sequence[CaptionedImage] | None = None) -> dict[str, Any]:
    """The candidates in a file by their image's name: {"image name": "caption"}, or COCO's results, an array.

    references: of `read_references`; they tell the image of an id, which may also stand for an image's name. Raises
    UserError for another file, naming the entry that is wrong, and for ids that nothing maps to images.
    """
    held = read_list(Path(file))
    if isinstance(held, dict) and "caption" in held and {*IMAGE_KEYS, *ID_KEYS} & held.keys():
        held = [held]  # of JSON Lines the only one
    if isinstance(held, dict) and isinstance(held.get("annotations"), list):
        held = held["annotations"]
    named = defaultdict(list)
    for reference in references or []:
        named[reference.key].append(reference.image)
    if isinstance(held, dict):
        return _by_image(held, named, str(file))
    if not isinstance(held, list):
        raise UserError(f"{file} must hold {FORMS}")
    found: dict[str, Any] = {}
    for number, entry in enumerate(held, start=1):
        where = f"{file}, entry {number}"
        if not isinstance(entry, dict) or "caption" not in entry:
            raise UserError(f"{where} is no result; it must be {RESULT}")
        name = next((entry[key] for key in IMAGE_KEYS if isinstance(entry.get(key), str)), None)
        if name is None:
            name = _named(next((entry[key] for key in ID_KEYS if key in entry), None), named, where)
        if name in found:
            raise UserError(f"{where} is a second caption of {name}; keep one of them")
        found[name] = entry["caption"]
    return found


def _by_image(held: dict[str, Any], named: Mapping[str, list[str]], file: str) -> dict[str, Any]:
    """Candidates whose names are ids of the references, by their images; others as they are."""
    images = {_bare(image) for group in named.values() for image in group}
    found: dict[str, Any] = {}
    for name, caption in held.items():
        of_id = named.get(as_id(name, f"an id of {file}"), []) if name.isdecimal() and name not in images else []
        image = of_id[0] if len(of_id) == 1 else name
        if image in found:
            raise UserError(f"{file}: '{name}' is a second caption of {image}; keep one of them")
        found[image] = caption
    return found


def _named(key: Any, named: Mapping[str, list[str]], where: str) -> str:
    """The image of an id. A text that is no id of the references is an image's name itself."""
    known = named.get(as_id(key, f"the image_id of {where}"), [])
    if len(known) == 1:
        return known[0]
    if not known and isinstance(key, str) and not key.isdecimal():
        return key
    wrong = "fits several images" if known else "is an id, and no list tells its image"
    raise UserError(
        f"{where}: {shown(key)} {wrong}; give --references a list with ids, such as COCO's captions_val2014.json, or "
        'write the candidates as {"image name": "caption"}'
    )


def match_captions(
    candidates: Mapping[str, Any],
    images: "str | Path | Mapping[str, Source] | None" = None,
    references: "Mapping[str, Any] | Sequence[CaptionedImage] | None" = None,
) -> Captions:
    """Find each candidate's image and references.

    candidates: image name -> caption; images: the folder that the names start from, or name -> image, or None for the
    metrics against references alone; references: image name -> captions (or one), or a list, of more images than the
    candidates' if need be. A suffix may be left out where only one image fits.
    Raises UserError naming the candidate that is no text, or lacks its image or its references.
    """
    if not candidates:
        raise UserError('there is no candidate; give {"image name": "caption"} of at least one image')
    texts = [_candidate(caption, f"the candidate of '{name}'") for name, caption in candidates.items()]
    found: list[Source] | None = None
    if isinstance(images, Mapping):
        found = [images[name] for name in candidates]
    elif images is not None:
        found = _find_images(list(candidates), Path(images))
    if references is None:
        return Captions(list(candidates), texts, found, None)
    if not isinstance(references, Mapping):
        references = {reference.image: reference.captions for reference in references}
    known = Names(references)
    groups = []
    for name in candidates:
        key = known.find(name, "the references")
        group = references[key] if key is not None else []
        group = [group] if isinstance(group, str) else group
        if not isinstance(group, list | tuple):
            raise UserError(f"the references of '{name}' are no list of captions but {shown(group)}")
        if not group:
            raise UserError(f"there are no references for candidate '{name}'; add them or take the candidate out")
        groups.append([_spaced(as_text(caption, f"a reference of '{name}'")) for caption in group])
    return Captions(list(candidates), texts, found, groups)


class Names:
    """Image names that are found also without their suffix, with "./" before them, and in the other `forms`."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: dict[str, str] = {}
        self.without_suffix: dict[str, list[str]] = defaultdict(list)
        names = sorted(names)
        for form in (_plain, with_slashes, _composed):
            for name in names:
                self.names.setdefault(form(name), name)
        for name in self.names:
            self.without_suffix[_bare(name)].append(name)

    def find(self, name: str, where: str) -> str | None:
        """The name as it is, else the only one that has or lacks a suffix more; None when there is none.

        Raises UserError when several fit.
        """
        found = (self._fit(form(name), where) for form in (_plain, with_slashes, _composed))
        return next((fitting for fitting in found if fitting is not None), None)

    def _fit(self, name: str, where: str) -> str | None:
        if name in self.names:
            return self.names[name]
        if _bare(name) != name:
            return self.names.get(_bare(name))
        fitting = self.without_suffix.get(name, [])
        if len(fitting) > 1:
            raise UserError(f"'{name}' fits {' and '.join(fitting)} of {where}; give the name with its suffix")
        return self.names[fitting[0]] if fitting else None


def _plain(name: str) -> str:
    return PurePosixPath(name).as_posix()


def _composed(name: str) -> str:
    return normalize("NFC", with_slashes(name))


def _bare(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if f"{dot}{suffix}".lower() in image_suffixes() else name


def _find_images(names: Iterable[str], root: Path) -> list[Source]:
    if not root.is_dir():
        raise UserError(f"no image folder {root}")
    listed: dict[Path, Names] = {}
    images: list[Source] = []
    for name in names:
        image = next((root / form for form in forms(name) if is_there(root / form)), None)
        if image is None:
            wanted = root / with_slashes(name)
            folder = wanted.parent
            if folder not in listed:
                listed[folder] = Names(file for file in _names_in(folder) if _bare(file) != file)
            found = listed[folder].find(wanted.name, str(folder)) if wanted != root else None
            if found is None:
                raise UserError(f"there is no image {root / name} for its candidate; add it or take the candidate out")
            image = folder / found
        images.append(image)
    return images


def _names_in(folder: Path) -> list[str]:
    """The names of a folder's files; none for one that cannot be read, or that cannot exist."""
    try:
        return [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):
        return []


def _candidate(caption: Any, called: str) -> str:
    """A candidate's words; an empty text for one that has none."""
    return "" if isinstance(caption, str) and not caption.strip() else _spaced(as_text(caption, called))


def _spaced(text: str) -> str:
    return " ".join(text.split())
