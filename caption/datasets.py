"""Datasets of images to caption: COCO, Flickr30k, NoCaps and its domains, any caption list, any folder of images."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from rlcf.data.catalogue import captions
from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.inputs.folders import LeftOut, scan
from rlcf.inputs.lists import CaptionedImage, read_captions
from rlcf.inputs.places import (
    KARPATHY,
    data_folder,
    find,
    find_folder,
    find_images,
    find_karpathy_list,
    find_list,
    image_folders,
    list_places,
)
from rlcf.inputs.sources import Source, name_of
from rlcf.inputs.stored import Columns, open_stored

DOMAINS = tuple(captions.DOMAINS)
NOCAPS, PER_DOMAIN = captions.NOCAPS_FILE, captions.NOCAPS_DOMAIN_FILES

NAMES = (*KARPATHY, "nocaps", *(f"nocaps-{domain}" for domain in DOMAINS), "json:FILE", "folder", "hf:NAME")


@dataclass(frozen=True)
class Dataset:
    """files: the images. published: True for a dataset that the published code reads in its own way; notes: what a user
    should be told of it."""

    name: str
    files: list[Source]
    samples: list[CaptionedImage]
    published: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [sample.image for sample in self.samples]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of what a record depends on, by what an error calls them."""
        captions = [[sample.captions, sample.domain] for sample in self.samples]
        return {"samples": digest_of(self.ids), "captions": digest_of(captions)}


def load_dataset(name: str, data: str, columns: Columns | None = None) -> Dataset:
    """Find a dataset's test images and their references.

    name: coco, flickr30k, nocaps (its three domains), nocaps-in-domain, nocaps-near-domain, nocaps-out-domain,
    "json:FILE" (DATA/FILE, whose .json may be left out, is a caption list; its paths start from DATA or from the list's
    own folder), "folder" (every image below DATA, without references), "folder:SUB" (below DATA/SUB) or
    "hf:NAME_OR_FOLDER[:split]", as in `open_stored`.
    Raises UserError naming what is missing and where it was looked for.
    """
    kind = name.partition(":")[0]
    if kind == "hf":
        return _stored(name, data, columns or Columns())
    root = data_folder(data)
    if kind == "folder":
        return _folder(name, find_folder(name, root))
    if kind == "json":
        file = find_list(name, root)
        return _with_images(name, file, read_captions(file), [root, file.parent], published=False)
    if name in KARPATHY:
        file = find_karpathy_list(name, root)
        return _with_images(name, file, read_captions(file), image_folders(file))
    if name == "nocaps" or name.removeprefix("nocaps-") in DOMAINS:
        return _nocaps(name, root)
    raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)} and folder:SUBFOLDER")


def _folder(name: str, root: Path) -> Dataset:
    left_out = LeftOut()
    files: list[Source] = [*scan(root, left_out)]
    told = f"left out {left_out}" if str(left_out) else ""
    if not files:
        raise UserError(f"{root} holds no image" + (f"; {told}" if told else ""))
    samples = [CaptionedImage(name_of(file, root)) for file in files]
    return Dataset(name, files, samples, published=False, notes=[f"{root}: {told}"] if told else [])


def _stored(name: str, data: str, columns: Columns) -> Dataset:
    stored = open_stored(name, data, columns.config)
    files = stored.images(columns.image)
    if not files:
        raise UserError(f"dataset {name} has no rows; give another split")
    captions = stored.captions(columns.answer)
    samples = [CaptionedImage(file.name, texts) for file, texts in zip(files, captions, strict=True)]
    return Dataset(name, [*files], samples, published=False)


def _nocaps(name: str, data: Path) -> Dataset:
    """From the original JSON, which tells each image's domain, or else from the files of one domain each."""
    wanted = DOMAINS if name == "nocaps" else (name.removeprefix("nocaps-"),)
    files = {domain: PER_DOMAIN[domain] for domain in wanted}

    def complete(place: Path) -> bool:
        listed = [NOCAPS] if place.name == NOCAPS else list(files.values())
        return all((place.parent / file).is_file() for file in listed)

    found = find(name, list_places(data, ["nocaps"], [NOCAPS, *files.values()]), complete)
    if found.name == NOCAPS:
        samples = [sample for sample in read_captions(found) if name == "nocaps" or sample.domain in wanted]
        if not samples:
            raise UserError(f"{found} has no image of the domain {wanted[0]}")
    else:
        samples = [
            replace(sample, domain=domain)
            for domain, file in files.items()
            for sample in read_captions(found.parent / file)
        ]
    return _with_images(name, found, samples, image_folders(found))


def _with_images(
    name: str, file: Path, samples: list[CaptionedImage], roots: list[Path], published: bool = True
) -> Dataset:
    root, paths = find_images(file, [sample.image for sample in samples], roots)
    placed = [replace(sample, image=path) for sample, path in zip(samples, paths, strict=True)]
    return Dataset(name, [root / path for path in paths], placed, published)
