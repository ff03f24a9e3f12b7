"""Datasets of labelled images: the ImageNet family, ten fine-grained sets, and any folder of class folders."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from classification.classnames import imagenet_wnids, names_of, read_classnames, read_lines, subset_wnids
from rlcf.data.catalogue import fine_grained
from rlcf.data.catalogue.imagenet import IMAGENET
from rlcf.data.entries import IMAGE_ROOTS as ROOTS
from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.run.data import data_folder, find

IMAGENET_FAMILY = {entry.name: entry.folders for entry in IMAGENET}
"""Name of a dataset -> folders that may hold it: that of the authors' code first, then that of CoOp's code."""


@dataclass(frozen=True)
class FineGrained:
    """The files of a fine-grained dataset, as CoOp's code lays them out.

    folder: name of the dataset's folder. images: the folder in it from which the paths of the split start.
    split: name of the file in it that lists the test images, or for FGVC-Aircraft the classes.
    """

    folder: str
    images: str
    split: str


FINE_GRAINED = {
    entry.name: FineGrained(entry.folders[0], entry.images, str(entry.files[0])) for entry in fine_grained.FINE_GRAINED
}

NAMES = (*IMAGENET_FAMILY, *FINE_GRAINED, "folder")


@dataclass(frozen=True)
class Dataset:
    """The labelled images of a dataset.

    name: as it was given to `load_dataset`. root: the folder to which sample ids are relative.
    samples: (image file, class index) pairs. classnames: the name of each class, by its index.
    """

    name: str
    root: Path
    samples: list[tuple[Path, int]]
    classnames: list[str]

    @property
    def files(self) -> list[Path]:
        """The image files, in the order of `samples`."""
        return [file for file, _ in self.samples]

    @property
    def ids(self) -> list[str]:
        """The ids of the samples: their paths relative to `root`, with forward slashes."""
        return [file.relative_to(self.root).as_posix() for file in self.files]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of what a record depends on, by what an error calls them."""
        labels = [label for _, label in self.samples]
        return {"samples": digest_of([self.ids, labels]), "class names": digest_of(self.classnames)}


def load_dataset(
    name: str, data: str, corruption: str = "gaussian_noise", severity: int = 5, classnames: str | None = None
) -> Dataset:
    """Finds the test images of a dataset.

    name: I, A, V, R, K, C, one of the ten fine-grained datasets, "folder" if the data folder holds a folder of images
    for each class, or "folder:SUB" if its subfolder SUB does. data: the data folder.
    corruption, severity: the part of ImageNet-C, for C alone.
    classnames: a text file with one class name a line, for folders alone. Without it the folders' names are used.
    Raises UserError for an unknown name, and naming the file or folder that is missing or damaged.
    """
    folder = data_folder(data)
    kind, _, sub = name.partition(":")
    if kind == "folder":
        return _folder(name, folder / sub, classnames)
    if classnames is not None:
        raise UserError(f"--classnames is for 'folder' datasets; the names of {name} are known")
    if name in IMAGENET_FAMILY:
        return _imagenet(name, folder, corruption, severity)
    if name == "aircraft":
        return _aircraft(folder)
    if name in FINE_GRAINED:
        return _fine_grained(name, folder)
    raise UserError(f"unknown dataset '{name}'; there are {', '.join(NAMES)} and folder:SUBFOLDER")


def _places(data: Path, folders: Sequence[str]) -> Iterator[Path]:
    """The paths at which a dataset's folder may lie, in the order in which they are tried."""
    return (data / root / folder for root in ROOTS for folder in folders)


def _class_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted, without hidden ones."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _scan(root: Path, index_of: dict[str, int]) -> list[tuple[Path, int]]:
    """The images below each class folder of `root`, sorted, with their class indices.

    index_of: class folder -> class index. Raises UserError for a class folder without images.
    """
    found = make_dataset(str(root), index_of, extensions=IMG_EXTENSIONS, allow_empty=True)
    filled = {label for _, label in found}
    for folder, label in index_of.items():
        if label not in filled:
            raise UserError(f"class folder {root / folder} holds no image; fill it or delete it")
    return [(Path(file), label) for file, label in found]


def _folder(name: str, root: Path, classnames: str | None) -> Dataset:
    """A dataset of any folder that holds a folder of images for each class."""
    if not root.is_dir():
        raise UserError(f"no folder {root} for dataset {name}")
    folders = _class_folders(root)
    if not folders:
        raise UserError(f"{root} holds no class folders; put each class's images into a folder of its own")
    if len(folders) == 1:
        raise UserError(f"{root} holds one class folder, {folders[0]}; give the folder that holds two or more")
    names = read_classnames(Path(classnames), folders) if classnames else [f.replace("_", " ") for f in folders]
    return Dataset(name, root, _scan(root, {folder: i for i, folder in enumerate(folders)}), names)


def _imagenet(name: str, data: Path, corruption: str, severity: int) -> Dataset:
    """A dataset of the ImageNet family. Its class folders are WordNet ids, those of V class indices."""
    folders = IMAGENET_FAMILY[name]
    if name == "C":
        folders = tuple(f"{folder}/{corruption}/{severity}" for folder in folders)
    if name == "V":
        known = {str(i): i for i in range(1000)}
        names = names_of(imagenet_wnids())
    else:
        wnids = subset_wnids(name.lower()) if name in ("A", "R") else imagenet_wnids()
        known = {wnid: i for i, wnid in enumerate(wnids)}
        names = names_of(wnids)

    def has_a_class(path: Path) -> bool:
        return path.is_dir() and any(folder in known for folder in _class_folders(path))

    root = find(name, _places(data, folders), has_a_class)
    present = _class_folders(root)
    strange = [folder for folder in present if folder not in known]
    if strange:
        raise UserError(f"{root / strange[0]} is no class of dataset {name}; take the folder out")
    return Dataset(name, root, _scan(root, {folder: known[folder] for folder in present}), names)


def _fine_grained(name: str, data: Path) -> Dataset:
    """A dataset of CoOp's with a split file: {"test": [[path, label, class name], ...]}, and parts such as "train"."""
    described = FINE_GRAINED[name]
    root = find(name, _places(data, [described.folder]), lambda path: (path / described.split).is_file())
    file = root / described.split
    try:
        split = json.loads(file.read_text())
        entries = [(str(path), int(label), str(classname)) for path, label, classname in split["test"]]
        classes = {int(label): str(c).replace("_", " ") for part in split.values() for _, label, c in part}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f'{file} is no split file: it needs {{"test": [[path, label, class name], ...]}}') from error
    if sorted(classes) != list(range(len(classes))):
        raise UserError(f"{file} has labels that do not run from 0 without a gap")
    samples = [(root / described.images / path, label) for path, label, _ in entries]
    return _existing(Dataset(name, root, samples, [classes[label] for label in range(len(classes))]))


def _aircraft(data: Path) -> Dataset:
    """FGVC-Aircraft, which lists its classes in one text file and the images with their classes in another."""
    described = FINE_GRAINED["aircraft"]
    root = find("aircraft", _places(data, [described.folder]), lambda path: (path / described.split).is_file())
    variants = read_lines(root / described.split)
    file = root / "images_variant_test.txt"
    samples = []
    for line in read_lines(file):
        image, _, variant = line.partition(" ")
        if variant not in variants:
            raise UserError(f"{file}: '{line}' does not end in a variant of {root / described.split}")
        samples.append((root / described.images / f"{image}.jpg", variants.index(variant)))
    return _existing(Dataset("aircraft", root, samples, variants))


def _existing(dataset: Dataset) -> Dataset:
    """The dataset itself. Raises UserError if it lists no image, or one that is not there."""
    if not dataset.samples:
        raise UserError(f"dataset {dataset.name} in {dataset.root} lists no test images")
    missing = next((file for file, _ in dataset.samples if not file.is_file()), None)
    if missing is not None:
        raise UserError(f"dataset {dataset.name} lists an image that is not there: {missing}")
    return dataset
