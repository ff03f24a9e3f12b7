"""Datasets of images with their captions: COCO's and Flickr30k's Karpathy test lists, and any list of that form."""

import itertools
import re
from dataclasses import dataclass
from functools import cached_property

from rlcf.errors import UserError
from rlcf.inputs.lists import CaptionedImage, read_captions
from rlcf.inputs.places import KARPATHY, data_folder, find_images, find_karpathy_list, find_list, image_folders
from rlcf.inputs.sources import Source
from rlcf.inputs.stored import Columns, open_stored

NAMES = (*KARPATHY, "json:FILE", "hf:NAME")
DIRECTIONS = ("i2t", "t2i")


@dataclass(frozen=True)
class Dataset:
    """Images, and the texts of each in a running list.

    files: of the images; ids: their paths in the list, or their rows; captions: the texts of each image, as they are
    encoded. published: True for a dataset that the published code reads in its own way.
    """

    name: str
    files: list[Source]
    ids: list[str]
    captions: list[list[str]]
    published: bool = True

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


def load_dataset(name: str, data: str, clean: bool = False, columns: Columns | None = None) -> Dataset:
    """Read a list of images with captions, in any form of `read_captions`, and find its images.

    name: coco, flickr30k, "json:FILE" - the list DATA/FILE (its .json may be left out), image paths relative to DATA or
    to the list's own folder - or "hf:NAME_OR_FOLDER[:split]", as in `open_stored`.
    clean: texts as in the published runs (`clean_text`).
    Raises UserError naming the list, the entry and what is wrong, or what is missing and where it was looked for.
    """
    kind = name.partition(":")[0]
    if kind == "hf":
        given = columns or Columns()
        stored = open_stored(name, data, given.config)
        sources = stored.images(given.image)
        captions = [_checked(name, f"row {row}", texts) for row, texts in enumerate(stored.captions(given.answer))]
        if not sources:
            raise UserError(f"dataset {name} has no rows; give another split")
        files: list[Source] = [*sources]
        ids = [source.name for source in sources]
    else:
        root = data_folder(data)
        if kind == "json":
            file = find_list(name, root)
            roots = [root, file.parent]
        elif name in KARPATHY:
            file = find_karpathy_list(name, root)
            roots = image_folders(file)
        else:
            raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)}")
        images: list[CaptionedImage] = read_captions(file)
        captions = [_checked(str(file), image.image, image.captions) for image in images]
        folder, ids = find_images(file, [image.image for image in images], roots)
        files = [folder / path for path in ids]
    if clean:
        captions = [[clean_text(text) for text in texts] for texts in captions]
    return Dataset(name, files, ids, captions, published=name in KARPATHY)


def _checked(where: str, image: str, captions: list[str]) -> list[str]:
    if not captions:
        raise UserError(f"{where} has no captions of {image}; retrieval needs one text or more of each image")
    return captions


def clean_text(text: str) -> str:
    """Lower case, the marks . ! " ( ) * # : ; ~ as spaces, at most 50 words: BLIP's cleaning, as published.

    >>> clean_text('A man (left) holds: "two"   dogs.')
    'a man left holds two dogs'
    """
    return " ".join(re.sub(r'[.!"()*#:;~]', " ", text.lower()).split()[:50])
