"""Where the datasets lie below the data folder, and where the images of a list do."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from rlcf.data.catalogue import CATALOGUE, remedy
from rlcf.data.catalogue.captions import KARPATHY_LISTS
from rlcf.data.entries import CAPTION_ROOTS
from rlcf.errors import UserError

KARPATHY = {name: (CATALOGUE[name].folders, files) for name, files in KARPATHY_LISTS.items()}
"""Karpathy's test sets -> their folders, and names of their lists: the method's own layout first, then LAVIS'."""
IMAGE_FOLDERS = ("", "images", "val")
"""Folders below a dataset's that the listed paths may start from."""


def expanded(path: str) -> str:
    """A path whose ~ is the home folder; without one that is known, the path as it is."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        return path


def data_folder(data: str) -> Path:
    """The folder that holds the datasets. Raises UserError when there is none."""
    if not data or not Path(data).is_dir():
        raise UserError(f"no data folder '{data}'; give --data the folder that holds the datasets")
    return Path(data)


def find(name: str, places: Iterable[Path], is_it: Callable[[Path], bool] = Path.is_file) -> Path:
    """The first of the places that `is_it`. Raises UserError naming the dataset and all places when there is none."""
    tried = list(dict.fromkeys(places))
    found = next((place for place in tried if is_it(place)), None)
    if found is None:
        raise UserError(f"dataset {name} was not found; tried {', '.join(map(str, tried))}{remedy(name)}")
    return found


def find_list(name: str, data: Path) -> Path:
    """The list of the dataset "json:FILE": DATA/FILE, whose .json may be left out.

    Raises UserError when there is none.
    """
    listed = expanded(name.partition(":")[2])
    if not listed:
        raise UserError("dataset json needs its list: json:FILE, a file below --data")
    return find(name, (data / listed, data / f"{listed}.json"))


def find_folder(name: str, data: Path) -> Path:
    """The folder of the dataset "folder" or "folder:SUB": DATA or DATA/SUB. Raises UserError when there is none."""
    root = data / expanded(name.partition(":")[2])
    if not root.is_dir():
        raise UserError(f"no folder {root} for dataset {name}")
    return root


def list_places(data: Path, folders: Iterable[str], files: Sequence[str]) -> Iterator[Path]:
    """The places of a dataset's list: each file, in each folder or its annotations/."""
    places = [data / root / folder / sub for root in CAPTION_ROOTS for folder in folders for sub in ("", "annotations")]
    return (place / file for file in files for place in places)


def find_karpathy_list(name: str, data: Path) -> Path:
    """The test list of `name`, a key of `KARPATHY`. Raises UserError when there is none."""
    return find(name, list_places(data, *KARPATHY[name]))


def image_folders(file: Path) -> list[Path]:
    """The folders that the paths of a dataset's list may start from. file: as `list_places` gives it."""
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    return [folder / sub for sub in IMAGE_FOLDERS]


def with_slashes(path: str) -> str:
    r"""A path that Windows wrote as others write it.

    >>> with_slashes(r".\clean\0.png")
    'clean/0.png'
    """
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def forms(path: str) -> Iterator[str]:
    """A path as it is, with slashes for backslashes, and with accented letters of one character, or of two, each."""
    yield path
    plain = with_slashes(path)
    yield plain
    yield normalize("NFC", plain)
    yield normalize("NFD", plain)


def find_images(file: Path, paths: Sequence[str], roots: Iterable[Path]) -> tuple[Path, list[str]]:
    """The folder that the paths of a list start from, and the paths as they lie there (`forms`).

    The folder is the first of `roots` that holds the first image, or else the first. Raises UserError for a list that
    names an image which is not there.
    """
    roots = list(roots)
    first = list(forms(paths[0])) if paths else []
    root = next((root for root in roots for path in first if is_there(root / path)), roots[0])
    found = []
    for path in paths:
        found.append(as_it_lies(root, path))
        if not is_there(root / found[-1]):
            raise UserError(f"{file} lists an image that is not there: {root / path}")
    return root, found


def is_there(file: Path) -> bool:
    """True for a file that exists; False also for a name that no file can have."""
    try:
        return file.is_file()
    except (OSError, ValueError):
        return False


def as_it_lies(root: Path, path: str) -> str:
    """The path below `root` that is there, in one of its `forms`; else as it is."""
    return next((name for name in forms(path) if is_there(root / name)), path)
