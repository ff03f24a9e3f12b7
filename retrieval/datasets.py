"""Datasets of images with their captions: COCO's and Flickr30k's Karpathy test lists, and any list of that form."""

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlcf.errors import UserError
from rlcf.run.data import (
    KARPATHY,
    data_folder,
    find_karpathy_list,
    find_list,
    image_folders,
    image_root,
    read_captions,
    require_images,
)

NAMES = (*KARPATHY, "json:FILE")
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
        """The texts of all images, in the running list."""
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

    def gallery(self, direction: str) -> list[str]:
        """i2t: the texts; t2i: the images' paths."""
        return self.texts if direction == "i2t" else self.ids

    def targets(self, direction: str, query: int) -> list[int]:
        """Places in the gallery of a query's right answers."""
        return list(self.texts_of[query]) if direction == "i2t" else [self.image_of[query]]


def load_dataset(name: str, data: str, clean: bool = False) -> Dataset:
    """Read a list of images with captions, [{"image": path, "caption": [text, ...]}, ...], and find its images.

    name: coco, flickr30k, or "json:FILE" - the list DATA/FILE (its .json may be left out), image paths relative to
    DATA. clean: texts as in the published runs (`clean_text`).
    Raises UserError naming the list, the entry and what is wrong, or what is missing and where it was looked for.
    """
    root = data_folder(data)
    if name.partition(":")[0] == "json":
        file, roots = find_list(name, root), [root]
    elif name in KARPATHY:
        file = find_karpathy_list(name, root)
        roots = image_folders(file)
    else:
        raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)}")
    images = read_captions(file, unique=True)
    silent = next((entry.image for entry in images if not entry.captions), None)
    if silent is not None:
        raise UserError(f"{file} has no captions of {silent}; retrieval needs one text or more of each image")
    folder = image_root(images[0].image, roots)
    files = [folder / entry.image for entry in images]
    require_images(file, files)
    captions = [[clean_text(text) for text in entry.captions] if clean else entry.captions for entry in images]
    return Dataset(name, files, [entry.image for entry in images], captions)


def clean_text(text: str) -> str:
    """Lower case, the marks . ! " ( ) * # : ; ~ as spaces, at most 50 words: BLIP's cleaning, as published.

    >>> clean_text('A man (left) holds: "two"   dogs.')
    'a man left holds two dogs'
    """
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", text.lower()).split()[:50])
