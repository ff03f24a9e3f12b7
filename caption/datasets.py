"""Datasets of images to caption: COCO, Flickr30k, NoCaps and its domains, any caption list, any folder of images."""

from dataclasses import dataclass, replace
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from rlcf.data.catalogue import captions
from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.run.data import (
    KARPATHY,
    CaptionedImage,
    data_folder,
    find,
    find_karpathy_list,
    find_list,
    image_folders,
    image_root,
    list_places,
    read_captions,
    require_images,
)

DOMAINS = tuple(captions.DOMAINS)
NOCAPS, PER_DOMAIN = captions.NOCAPS_FILE, captions.NOCAPS_DOMAIN_FILES

NAMES = (*KARPATHY, "nocaps", *(f"nocaps-{domain}" for domain in DOMAINS), "json:FILE", "folder")


@dataclass(frozen=True)
class Dataset:
    """root: what the images' paths start from."""

    name: str
    root: Path
    samples: list[CaptionedImage]

    @property
    def files(self) -> list[Path]:
        return [self.root / sample.image for sample in self.samples]

    @property
    def ids(self) -> list[str]:
        return [sample.image for sample in self.samples]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of what a record depends on, by what an error calls them."""
        captions = [[sample.captions, sample.domain] for sample in self.samples]
        return {"samples": digest_of(self.ids), "captions": digest_of(captions)}


def load_dataset(name: str, data: str) -> Dataset:
    """Find a dataset's test images and their references.

    name: coco, flickr30k, nocaps (its three domains), nocaps-in-domain, nocaps-near-domain, nocaps-out-domain,
    "json:FILE" (DATA/FILE, whose .json may be left out, is a caption list; its paths start from DATA or from the list's
    own folder), "folder" (every image below DATA, without references) or "folder:SUB" (below DATA/SUB).
    Raises UserError naming what is missing and where it was looked for.
    """
    root = data_folder(data)
    kind, _, rest = name.partition(":")
    if kind == "folder":
        return _folder(name, root / rest)
    if kind == "json":
        file = find_list(name, root)
        return _with_images(name, file, read_captions(file), [root, file.parent])
    if name in KARPATHY:
        file = find_karpathy_list(name, root)
        return _with_images(name, file, read_captions(file), image_folders(file))
    if name == "nocaps" or name.removeprefix("nocaps-") in DOMAINS:
        return _nocaps(name, root)
    raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)} and folder:SUBFOLDER")


def _folder(name: str, root: Path) -> Dataset:
    if not root.is_dir():
        raise UserError(f"no folder {root} for dataset {name}")
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in IMG_EXTENSIONS and file.is_file())
    if not files:
        raise UserError(f"{root} holds no image")
    return Dataset(name, root, [CaptionedImage(file.relative_to(root).as_posix()) for file in files])


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


def _with_images(name: str, file: Path, samples: list[CaptionedImage], roots: list[Path]) -> Dataset:
    dataset = Dataset(name, image_root(samples[0].image, roots), samples)
    require_images(file, dataset.files)
    return dataset
