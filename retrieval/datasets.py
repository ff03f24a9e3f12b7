"""Datasets of images with their captions: COCO's and Flickr30k's Karpathy test lists, and any list of that form."""

import hashlib
import itertools
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlcf.errors import UserError


@dataclass(frozen=True)
class Listed:
    """Where a known dataset lies. lists: places of its list below the folder; images: what its paths start from."""

    folders: tuple[str, ...]
    lists: tuple[str, ...]
    images: tuple[str, ...]


LISTED = {
    "coco": Listed(
        ("coco2014", "coco"),
        ("coco_karpathy_test.json", "annotations/coco_karpathy_test.json"),
        ("", "images"),
    ),
    "flickr30k": Listed(
        ("flickr30k",),
        ("annotations/flickr30k_test.json", "flickr30k_test.json", "annotations/test.json"),
        ("", "images"),
    ),
}
"""Name -> where to look: the method's own layout first, then LAVIS'."""

NAMES = (*LISTED, "json:FILE")
ROOTS = ("", "dataset")
"""Where below --data a dataset may lie."""

DIRECTIONS = ("i2t", "t2i")


@dataclass(frozen=True)
class Dataset:
    """Images, and the texts of each in a running list.

    files: of the images; ids: their paths in the list; captions: the texts of each image, as they are encoded.
    """

    name: str
    files: list[Path]
    ids: list[str]
    captions: list[list[str]]

    @cached_property
    def texts(self) -> list[str]:
        return [text for group in self.captions for text in group]

    @cached_property
    def image_of(self) -> list[int]:
        """The image that each text belongs to."""
        return [image for image, group in enumerate(self.captions) for _ in group]

    @cached_property
    def texts_of(self) -> list[range]:
        """The texts that belong to each image."""
        ends = [0]
        for group in self.captions:
            ends.append(ends[-1] + len(group))
        return [range(first, end) for first, end in itertools.pairwise(ends)]

    def query_ids(self, direction: str) -> list[str]:
        """i2t: the images' paths; t2i: each text as its image's path, # and its place among the image's texts."""
        if direction == "i2t":
            return self.ids
        return [f"{self.ids[i]}#{text - self.texts_of[i][0]}" for text, i in enumerate(self.image_of)]

    def gallery_size(self, direction: str) -> int:
        return len(self.texts if direction == "i2t" else self.files)

    def targets(self, direction: str, query: int) -> list[int]:
        """Where in the gallery the right answers to a query are."""
        return list(self.texts_of[query]) if direction == "i2t" else [self.image_of[query]]

    @cached_property
    def digest(self) -> str:
        """What the list says, in 64 characters."""
        return hashlib.sha256(json.dumps([self.ids, self.captions]).encode()).hexdigest()


def load_dataset(name: str, data: str, clean: bool = False) -> Dataset:
    """Read a list of images with captions, [{"image": path, "caption": [text, ...]}, ...], and find its images.

    name: coco, flickr30k, or "json:FILE" - the list DATA/FILE (its .json may be left out), image paths relative to
    DATA. clean: texts as in the published runs (`clean_text`).
    Raises UserError naming the list, the entry and what is wrong, or what is missing and where it was looked for.
    """
    if not data or not Path(data).is_dir():
        raise UserError(f"no data folder '{data}'; give --data the folder that holds the datasets")
    kind, _, listed = name.partition(":")
    if kind == "json":
        file, roots = _list_file(name, Path(data), listed), [Path(data)]
    elif name in LISTED:
        file, roots = _find(name, Path(data))
    else:
        raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)}")
    images, captions = _read_list(file)
    root = next((root for root in roots if (root / images[0]).is_file()), roots[0])
    files = [root / image for image in images]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise UserError(f"{file} lists an image that is not there: {missing}")
    if clean:
        captions = [[clean_text(text) for text in group] for group in captions]
    return Dataset(name, files, images, captions)


def clean_text(text: str) -> str:
    """Lower case, the marks . ! " ( ) * # : ; ~ as spaces, at most 50 words: BLIP's cleaning, as published.

    >>> clean_text('A man (left) holds: "two"   dogs.')
    'a man left holds two dogs'
    """
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", text.lower()).split()[:50])


def _list_file(name: str, data: Path, listed: str) -> Path:
    if not listed:
        raise UserError("dataset json needs its list: json:FILE, a file below --data")
    for file in (data / listed, data / f"{listed}.json"):
        if file.is_file():
            return file
    raise UserError(f"dataset {name} was not found; tried {data / listed} and {data / listed}.json")


def _find(name: str, data: Path) -> tuple[Path, list[Path]]:
    """The first list that exists, and where its images may lie."""
    described, tried = LISTED[name], []
    for folder in (data / root / folder for root in ROOTS for folder in described.folders):
        for file in (folder / listed for listed in described.lists):
            if file.is_file():
                return file, [folder / images for images in described.images]
            tried.append(file)
    raise UserError(f"dataset {name} was not found; tried {', '.join(map(str, tried))}")


def _read_list(file: Path) -> tuple[list[str], list[list[str]]]:
    """The image paths and the captions of each."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no JSON file ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{file} must hold a list with an entry an image: [{{"image": path, "caption": [text]}}, ...]')
    images, captions = [], []
    for number, entry in enumerate(entries, start=1):
        image, texts = _read_entry(f"{file}, entry {number}", entry)
        images.append(image)
        captions.append(texts)
    twice = [image for image, count in Counter(images).items() if count > 1]
    if twice:
        raise UserError(
            f"{file} lists {twice[0]} {images.count(twice[0])} times; give each image one entry with all texts"
        )
    return images, captions


def _read_entry(where: str, entry: Any) -> tuple[str, list[str]]:
    image = entry.get("image") if isinstance(entry, dict) else None
    if not isinstance(image, str) or not image:
        raise UserError(f'{where} names no image; it must be {{"image": path, "caption": [text, ...]}}')
    texts = entry.get("caption")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(f'{where} ({image}) has no captions; "caption" must hold one text or more')
    return Path(image).as_posix(), texts
