"""Datasets of images to caption: COCO, Flickr30k, NoCaps and its domains, any caption list, any folder of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from rlcf.errors import UserError
from rlcf.run.data import CaptionedImage, read_captions

DOMAINS = ("in-domain", "near-domain", "out-domain")
NOCAPS = "nocaps_val_4500_captions.json"
PER_DOMAIN = {domain: f"nocaps_val_{n}_{domain}.json" for domain, n in zip(DOMAINS, (417, 2670, 1413), strict=True)}

FOLDERS = {"coco": ("coco2014", "coco"), "flickr30k": ("flickr30k",), "nocaps": ("nocaps",)}
"""Name -> folders to look for: the method's own layout first."""
LISTS = {"coco": ("coco_karpathy_test.json",), "flickr30k": ("flickr30k_test.json", "test.json")}
"""Name -> names of its list, which lies in the folder or in its annotations/: the method's own first."""

NAMES = (*FOLDERS, *(f"nocaps-{domain}" for domain in DOMAINS), "json:FILE", "folder")
ROOTS = ("", "dataset")
"""Where below --data a dataset may lie."""
IMAGE_FOLDERS = ("", "images", "val")
"""Where below a dataset's folder the listed paths may start."""


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


def load_dataset(name: str, data: str) -> Dataset:
    """Find a dataset's test images and their references.

    name: coco, flickr30k, nocaps (its three domains), nocaps-in-domain, nocaps-near-domain, nocaps-out-domain,
    "json:FILE" (DATA/FILE, whose .json may be left out, is a caption list; its paths start from DATA or from the list's
    own folder), "folder" (every image below DATA, without references) or "folder:SUB" (below DATA/SUB).
    Raises UserError naming what is missing and where it was looked for.
    """
    if not data or not Path(data).is_dir():
        raise UserError(f"no data folder '{data}'; give --data the folder that holds the datasets")
    kind, _, rest = name.partition(":")
    if kind == "folder":
        return _folder(name, Path(data) / rest)
    if kind == "json" and rest:
        file = _list_file(name, Path(data), rest)
        return _with_images(name, file, read_captions(file), [Path(data), file.parent])
    if name in LISTS:
        file = _find(name, Path(data), FOLDERS[name], *([listed] for listed in LISTS[name]))[0]
        return _with_images(name, file, read_captions(file), _image_roots(file))
    if name == "nocaps" or name.removeprefix("nocaps-") in DOMAINS:
        return _nocaps(name, Path(data))
    raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)} and folder:SUBFOLDER")


def _list_file(name: str, data: Path, listed: str) -> Path:
    for file in (data / listed, data / f"{listed}.json"):
        if file.is_file():
            return file
    raise UserError(f"dataset {name} was not found; tried {data / listed} and {data / listed}.json")


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
    files = _find(name, data, FOLDERS["nocaps"], [NOCAPS], [PER_DOMAIN[domain] for domain in wanted])
    if files[0].name == NOCAPS:
        samples = [sample for sample in read_captions(files[0]) if name == "nocaps" or sample.domain in wanted]
        if not samples:
            raise UserError(f"{files[0]} has no image of the domain {wanted[0]}")
    else:
        samples = [
            CaptionedImage(sample.image, sample.captions, domain)
            for domain, file in zip(wanted, files, strict=True)
            for sample in read_captions(file)
        ]
    return _with_images(name, files[0], samples, _image_roots(files[0]))


def _find(name: str, data: Path, folders: Sequence[str], *choices: list[str]) -> list[Path]:
    """The first of the choices, each one or several files, that is complete."""
    tried = []
    for root in ROOTS:
        for folder in (data / root / folder / sub for folder in folders for sub in ("", "annotations")):
            for choice in choices:
                files = [folder / file for file in choice]
                if all(file.is_file() for file in files):
                    return files
                tried += files
    raise UserError(f"dataset {name} was not found; tried {', '.join(map(str, dict.fromkeys(tried)))}")


def _image_roots(file: Path) -> list[Path]:
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    return [folder / sub for sub in IMAGE_FOLDERS]


def _with_images(name: str, file: Path, samples: list[CaptionedImage], roots: list[Path]) -> Dataset:
    root = next((root for root in roots if (root / samples[0].image).is_file()), roots[0])
    dataset = Dataset(name, root, samples)
    missing = next((image for image in dataset.files if not image.is_file()), None)
    if missing is not None:
        raise UserError(f"{file} lists an image that is not there: {missing}")
    return dataset
