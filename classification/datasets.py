"""Datasets of images: the ImageNet family, ten fine-grained sets, folders of class folders, images without labels."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from classification.classnames import imagenet_wnids, names_of, subset_wnids
from rlcf.data.catalogue import fine_grained
from rlcf.data.catalogue.imagenet import IMAGENET
from rlcf.data.command import own_command
from rlcf.data.entries import IMAGE_ROOTS as ROOTS
from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.inputs.class_names import read_classnames, read_names, repeated_names
from rlcf.inputs.folders import LeftOut, class_folders, readable_name, scan, split_among
from rlcf.inputs.json_files import read_json
from rlcf.inputs.places import data_folder, expanded, find, find_folder
from rlcf.inputs.sources import Source, name_of
from rlcf.inputs.stored import Columns, StoredDataset, open_stored
from rlcf.inputs.text_files import read_lines

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

NAMES = (*IMAGENET_FAMILY, *FINE_GRAINED, "folder", "images", "hf:NAME")


@dataclass(frozen=True)
class Dataset:
    """The images of a dataset.

    name: as it was given to `load_dataset`. root: the folder to which sample ids are relative.
    samples: (image, class index) pairs, None for images without labels. classnames: the name of each class, by its
    index. published: True for a dataset that the published code reads in its own way. notes: what a user should be told
    of it.
    """

    name: str
    root: Path
    samples: Sequence[tuple[Source, int | None]]
    classnames: list[str]
    published: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """False for images of which nobody has told the class."""
        return all(label is not None for _, label in self.samples)

    @property
    def files(self) -> list[Source]:
        """The images, in the order of `samples`."""
        return [file for file, _ in self.samples]

    @property
    def ids(self) -> list[str]:
        """The ids of the samples: their paths relative to `root`, with forward slashes, or their rows."""
        return [name_of(file, self.root) for file in self.files]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of what a record depends on, by what an error calls them."""
        labels = [label for _, label in self.samples]
        return {"samples": digest_of([self.ids, labels]), "class names": digest_of(self.classnames)}


def load_dataset(
    name: str,
    data: str,
    corruption: str = "gaussian_noise",
    severity: int = 5,
    classnames: str | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """Finds the test images of a dataset.

    name: I, A, V, R, K, C, one of the ten fine-grained datasets, "folder" if the data folder holds a folder of images
    for each class, "folder:SUB" if its subfolder SUB does, "images" or "images:SUB" for a folder of images without
    labels, or "hf:NAME_OR_FOLDER[:split]", as in `open_stored`. data: the data folder. corruption, severity: the part
    of ImageNet-C, for C alone. classnames: a file as in `read_classnames`, for folders, hf and images alone. Without it
    folders' own names are used.
    Raises UserError for an unknown name, and naming the file or folder that is missing or damaged.
    """
    kind = name.partition(":")[0]
    if kind == "hf":
        given = columns or Columns()
        return _stored(open_stored(name, data, given.config), given, classnames)
    folder = data_folder(data)
    if kind == "folder":
        return _folder(name, find_folder(name, folder), classnames)
    if kind == "images":
        return _images(name, find_folder(name, folder), classnames)
    if classnames is not None:
        raise UserError(f"--classnames is for 'folder', 'hf' and 'images' datasets; the names of {name} are known")
    if name == "C":
        return _imagenet(name, folder, corruption, severity)
    if name in LOADERS:
        return LOADERS[name](folder)
    known = dict.fromkeys((*NAMES, *LOADERS))
    raise UserError(f"unknown dataset '{name}'; there are {', '.join(known)} and folder:SUBFOLDER")


def _places(data: Path, folders: Sequence[str]) -> Iterator[Path]:
    """The paths at which a dataset's folder may lie, in the order in which they are tried."""
    return (data / root / folder for root in ROOTS for folder in folders)


def _scan(root: Path, index_of: dict[str, int], left_out: LeftOut) -> list[tuple[Source, int]]:
    """The images below each class folder of `root`, sorted, with their class indices.

    index_of: class folder -> class index. Raises UserError for a class folder without images.
    """
    samples: list[tuple[Source, int]] = []
    for folder, label in index_of.items():
        found = scan(root / folder, left_out)
        if not found:
            told = f" ({left_out} in {root})" if str(left_out) else ""
            raise UserError(f"class folder {root / folder} holds no image{told}; fill it or delete it")
        samples += [(file, label) for file in found]
    return samples


def _told(root: Path, left_out: LeftOut, *further: str) -> list[str]:
    told = f"{root}: left out {left_out}" if str(left_out) else ""
    return [note for note in (told, *further) if note]


def _folder(name: str, root: Path, classnames: str | None) -> Dataset:
    """A dataset of any folder that holds a folder of images for each class."""
    left_out = LeftOut()
    folders = class_folders(root, left_out)
    if not folders:
        remedy = "put each class's images into a folder of its own, or take --datasets images"
        raise UserError(f"{root} holds no class folders; {remedy}")
    split = split_among(root, folders)
    if split:
        given = f"{name}/{split}" if ":" in name else f"{name}:{split}"
        raise UserError(f"{root} holds splits and no classes ({', '.join(folders)}); give one: --datasets {given}")
    if len(folders) == 1:
        raise UserError(f"{root} holds one class folder, {folders[0]}; give the folder that holds two or more")
    shown = [readable_name(folder) for folder in folders]
    names = read_classnames(Path(expanded(classnames)), shown) if classnames else _words(shown)
    samples = _scan(root, {folder: i for i, folder in enumerate(folders)}, left_out)
    notes = _told(root, left_out, repeated_names(names, shown))
    return Dataset(name, root, samples, names, published=False, notes=notes)


def _words(names: Sequence[str]) -> list[str]:
    """The class names that folders, or a column, tell: WordNet ids are ImageNet's, underscores are spaces."""
    return names_of(names) if set(imagenet_wnids()).issuperset(names) else [name.replace("_", " ") for name in names]


def _stored(stored: StoredDataset, columns: Columns, classnames: str | None) -> Dataset:
    """A dataset of Hugging Face with a column of images and one of labels."""
    images = stored.images(columns.image)
    labels, names = stored.labels(columns.answer)
    if not images:
        raise UserError(f"dataset {stored.name} has no rows; give another split")
    if classnames is None and names is None:
        raise UserError(f"dataset {stored.name} numbers its classes without naming them; give --classnames FILE")
    if classnames is not None:
        file = Path(expanded(classnames))
        given = read_names(file) if names is None else read_classnames(file, names)
        if len(given) <= max(labels):
            raise UserError(f"{file} holds {len(given)} class names, and {stored.name} has a label {max(labels)}")
        called, names = names or [str(i) for i in range(len(given))], given
    else:
        assert names is not None
        called, names = names, _words(names)
    notes = [note for note in [repeated_names(names, called)] if note]
    return Dataset(stored.name, Path(), list(zip(images, labels, strict=True)), names, published=False, notes=notes)


def _images(name: str, root: Path, classnames: str | None) -> Dataset:
    """A dataset of a folder of images without labels."""
    if classnames is None:
        raise UserError(
            f"dataset {name} has no class folders; give --classnames a text file with one class name a line"
        )
    left_out = LeftOut()
    images: list[Source] = [*scan(root, left_out)]
    if not images:
        told = f" that is read; left out {left_out}" if str(left_out) else ""
        raise UserError(f"{root} holds no image{told}")
    names = read_names(Path(expanded(classnames)))
    return Dataset(name, root, [(file, None) for file in images], names, published=False, notes=_told(root, left_out))


def _imagenet(name: str, data: Path, corruption: str = "", severity: int = 0) -> Dataset:
    """A dataset of the ImageNet family. Its class folders are WordNet ids, those of V class indices."""
    folders = IMAGENET_FAMILY[name]
    if name == "C":
        folders = tuple(f"{folder}/{corruption}/{severity}" for folder in folders)
    if name == "V":
        wnids = imagenet_wnids()
        known = {str(i): i for i in range(1000)}
    else:
        wnids = subset_wnids(name.lower()) if name in ("A", "R") else imagenet_wnids()
        known = {wnid: i for i, wnid in enumerate(wnids)}

    def has_a_class(path: Path) -> bool:
        return path.is_dir() and any(folder in known for folder in class_folders(path, LeftOut()))

    places = list(_places(data, folders))
    if not any(map(has_a_class, places)):
        _refuse_flat(name, places)
    root, left_out = find(name, places, has_a_class), LeftOut()
    present = class_folders(root, left_out)
    strange = [folder for folder in present if folder not in known]
    if strange:
        raise UserError(f"{root / strange[0]} is no class of dataset {name}; take the folder out")
    samples = _scan(root, {folder: known[folder] for folder in present}, left_out)
    return Dataset(name, root, samples, names_of(wnids), notes=_told(root, left_out))


def _refuse_flat(name: str, places: Sequence[Path]) -> None:
    """Raises UserError naming a place that holds images and no class folders, as ImageNet's archive unpacks."""
    flat = next((place for place in places if place.is_dir() and not class_folders(place, LeftOut())), None)
    found = scan(flat, LeftOut()) if flat else []
    if found:
        raise UserError(
            f"{flat} holds {len(found):,} images and no class folders (n01440764, ...), which tell the classes of "
            f"dataset {name}; sort them into class folders ({own_command()} convert imagenet-val)"
        )


def _fine_grained(name: str, data: Path) -> Dataset:
    """A dataset of CoOp's with a split file: {"test": [[path, label, class name], ...]}, and parts such as "train"."""
    described = FINE_GRAINED[name]
    root = find(name, _places(data, [described.folder]), lambda path: (path / described.split).is_file())
    file = root / described.split
    split = read_json(file)
    try:
        entries = [(str(path), int(label), str(classname)) for path, label, classname in split["test"]]
        classes = {int(label): str(c).replace("_", " ") for part in split.values() for _, label, c in part}
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f'{file} is no split file: it needs {{"test": [[path, label, class name], ...]}}') from error
    if sorted(classes) != list(range(len(classes))):
        raise UserError(f"{file} has labels that do not run from 0 without a gap")
    samples: list[tuple[Source, int]] = [(root / described.images / path, label) for path, label, _ in entries]
    return _existing(Dataset(name, root, samples, [classes[label] for label in range(len(classes))]))


def _aircraft(data: Path) -> Dataset:
    """FGVC-Aircraft, which lists its classes in one text file and the images with their classes in another."""
    described = FINE_GRAINED["aircraft"]
    root = find("aircraft", _places(data, [described.folder]), lambda path: (path / described.split).is_file())
    variants = read_lines(root / described.split)
    file = root / "images_variant_test.txt"
    samples: list[tuple[Source, int]] = []
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
    missing = next((file for file in dataset.files if isinstance(file, Path) and not file.is_file()), None)
    if missing is not None:
        raise UserError(f"dataset {dataset.name} lists an image that is not there: {missing}")
    return dataset


LOADERS: dict[str, Callable[[Path], Dataset]] = {
    **{name: partial(_imagenet, name) for name in IMAGENET_FAMILY if name != "C"},
    **{name: partial(_fine_grained, name) for name in FINE_GRAINED},
    "aircraft": _aircraft,
}
"""Name of a dataset whose classes are known -> from the data folder to its test images."""
