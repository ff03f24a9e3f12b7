"""Finding datasets below the data folder, and reading lists of captioned images."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlcf.data.catalogue import CATALOGUE, remedy
from rlcf.data.catalogue.captions import KARPATHY_LISTS
from rlcf.data.entries import CAPTION_ROOTS
from rlcf.errors import UserError

KARPATHY = {name: (CATALOGUE[name].folders, files) for name, files in KARPATHY_LISTS.items()}
"""Karpathy's test sets -> their folders, and names of their lists: the method's own layout first, then LAVIS'."""
IMAGE_FOLDERS = ("", "images", "val")
"""Folders below a dataset's that the listed paths may start from."""

FORMS = '[{"image": path, "caption": text or texts}, ...] or {"images": [...], "annotations": [...]}'


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
    listed = name.partition(":")[2]
    if not listed:
        raise UserError("dataset json needs its list: json:FILE, a file below --data")
    return find(name, (data / listed, data / f"{listed}.json"))


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


def image_root(image: str, roots: Iterable[Path]) -> Path:
    """The folder that the paths of a list start from: the first that holds `image`, or else the first."""
    roots = list(roots)
    return next((root for root in roots if (root / image).is_file()), roots[0])


def require_images(file: Path, images: Iterable[Path]) -> None:
    """Raises UserError for a list that names an image which is not there."""
    missing = next((image for image in images if not image.is_file()), None)
    if missing is not None:
        raise UserError(f"{file} lists an image that is not there: {missing}")


@dataclass(frozen=True)
class CaptionedImage:
    """image: its path below the image folder; captions: none where a test set keeps them back; domain: NoCaps'."""

    image: str
    captions: list[str] = field(default_factory=list)
    domain: str = ""


def read_captions(file: Path, unique: bool = False) -> list[CaptionedImage]:
    """The images of a list in its order, each once, with all its captions.

    file: [{"image", "caption": text or texts}] - one entry a caption or an image - or NoCaps' {"images": [{"id",
    "file_name", "domain"}], "annotations": [{"image_id", "caption"}]}. unique: refuse a list that names an image twice.
    Raises UserError for a file that is missing or no such list, naming the entry, and for an empty caption.
    """
    if not file.is_file():
        raise UserError(f"no caption list {file}")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is no JSON file ({error})") from error
    if isinstance(held, dict) and isinstance(held.get("images"), list):
        entries = _nocaps_entries(file, held)
    elif isinstance(held, list):
        entries = [_entry(f"{file}, entry {number}", entry) for number, entry in enumerate(held, start=1)]
    else:
        raise UserError(f"{file} is no caption list; it must hold {FORMS}")
    if not entries:
        raise UserError(f"{file} lists no image; it must hold {FORMS}")
    images: dict[str, CaptionedImage] = {}
    for entry in entries:
        if unique and entry.image in images:
            count = sum(other.image == entry.image for other in entries)
            raise UserError(f"{file} lists {entry.image} {count} times; give each image one entry with all texts")
        images.setdefault(entry.image, replace(entry, captions=[])).captions.extend(entry.captions)
    return list(images.values())


def _entry(where: str, entry: Any) -> CaptionedImage:
    image = entry.get("image") if isinstance(entry, dict) else None
    if not isinstance(image, str) or not image:
        raise UserError(f'{where} names no image; it must be {{"image": path, "caption": text or texts}}')
    captions = entry.get("caption")
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not captions:
        raise UserError(f'{where} ({image}) has no captions; "caption" must hold one text or more')
    return CaptionedImage(Path(image).as_posix(), [_text(f"{where} ({image})", caption) for caption in captions])


def _nocaps_entries(file: Path, held: dict[str, Any]) -> list[CaptionedImage]:
    try:
        entries = {image["id"]: (str(image["file_name"]), image.get("domain") or "") for image in held["images"]}
        images = {key: CaptionedImage(name, [], domain) for key, (name, domain) in entries.items()}
        for annotation in held.get("annotations") or []:
            image = images[annotation["image_id"]]
            image.captions.append(_text(f"{file} ({image.image})", annotation["caption"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is no caption list of NoCaps' form; it must hold {FORMS} ({error})") from error
    return list(images.values())


def _text(where: str, caption: Any) -> str:
    if not isinstance(caption, str) or not caption.strip():
        raise UserError(f"{where} has an empty caption; give it words or take it out")
    return caption
