"""The one reader of lists of captioned images, in every form that people have them."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from rlcf.errors import UserError
from rlcf.inputs.json_files import as_id, as_text, read_json, shown
from rlcf.inputs.text_files import read_lines

FORMS = (
    '[{"image": path, "caption": text or texts}, ...], {path: text or texts}, COCO\'s or NoCaps\' {"images": [...], '
    '"annotations": [...]}, or Karpathy\'s {"images": [{"filename", "split", "sentences"}]}'
)
IMAGE_KEYS = (
    *("image", "file_name", "filename", "image_path", "image_name", "image_file", "img_path", "img"),
    *("file", "path", "filepath", "file_path"),
)
CAPTION_KEYS = ("caption", "captions", "text", "texts", "sentence", "sentences", "references", "refs", "comment", "raw")
ID_KEYS = ("image_id", "id")
"""What an entry of a list calls its image, its captions and its id."""
TABLES = (".csv", ".tsv", ".txt", ".token")
"""The endings of lists that are tables and no JSON."""
TEST, TRAINING = ("test",), ("train", "restval")
"""Karpathy's splits: what is tested on, and what is trained on."""


@dataclass(frozen=True)
class CaptionedImage:
    """image: its path below the image folder; captions: none where a test set keeps them back; domain: NoCaps'.

    key: the image's id in its list, "" where the list has none.
    """

    image: str
    captions: list[str] = field(default_factory=list)
    domain: str = ""
    key: str = field(default="", compare=False)


def read_captions(file: Path, splits: Sequence[str] = TEST) -> list[CaptionedImage]:
    """The images of a list in its order, each once, with all its captions.

    file: JSON in one of `FORMS`; the first has an entry an image or an entry a caption; or a table (`read_list`).
    splits: those that are taken of Karpathy's file, which holds all. Raises UserError for a file that is missing or no
    such list, naming the entry that is wrong, and for an image that has two lists of captions.
    """
    if not file.exists():
        raise UserError(f"no caption list {file}")
    return captions_in(read_list(file), str(file), splits)


def read_list(file: Path) -> Any:
    """The content of a file of captions: of JSON as `read_json`, of a table {"image", "caption"} of each line.

    A table ends in one of `TABLES`. It has lines "image#number<TAB>caption", as Flickr30k's, or columns that commas,
    tabs or bars part and a first line with their names, as Kaggle's copies of Flickr8k and Flickr30k. Raises UserError
    as `read_json`, and for another table.
    """
    if file.suffix.lower() not in TABLES:
        return read_json(file)
    lines = read_lines(file)
    if lines and lines[0][0] in "[{":
        return read_json(file)
    numbered = [re.fullmatch(r"(.+)#\d+\t(.+)", line) for line in lines]
    if lines and all(numbered):
        return [{"image": line[1], "caption": line[2]} for line in numbered if line]
    head = lines[0] if lines else ""
    between = next((sign for sign in "|\t," if sign in head), ",")
    reader = csv.reader if between == "," else partial(csv.reader, quoting=csv.QUOTE_NONE)
    try:
        rows = [[cell.strip() for cell in row] for row in reader(lines, delimiter=between, strict=True)]
    except csv.Error as error:
        raise UserError(f"{file} cannot be read as a table ({error}); mend its quotes") from error
    names = [name.lower() for name in rows[0]] if rows else []
    image, caption = ([i for i, name in enumerate(names) if name in keys] for keys in (IMAGE_KEYS, CAPTION_KEYS))
    if len(image) != 1 or len(caption) != 1:
        raise UserError(
            f"{file} is no table of captions; its first line must name the columns, image and caption, or each line be "
            "'image#0<TAB>caption'"
        )
    wrong = next((number for number, row in enumerate(rows, start=1) if len(row) != len(names)), None)
    if wrong is not None:
        raise UserError(f"{file}, row {wrong} has {len(rows[wrong - 1])} columns of {len(names)}; mend it")
    return [{"image": row[image[0]], "caption": row[caption[0]]} for row in rows[1:]]


def captions_in(held: Any, file: str, splits: Sequence[str] = TEST) -> list[CaptionedImage]:
    """The same of a list that is read already. file: its name in errors."""
    if isinstance(held, dict) and _of(held, IMAGE_KEYS) and _of(held, CAPTION_KEYS):
        held = [held]  # of JSON Lines the only one
    if isinstance(held, dict) and "images" not in held:
        held = next((held[key] for key in ("annotations", "data") if _is_list_of_objects(held.get(key))), held)
    if isinstance(held, dict) and isinstance(held.get("images"), list):
        described = held["images"]
        karpathy = any(isinstance(image, dict) and "sentences" in image for image in described)
        entries = _karpathy(file, described, splits) if karpathy else _coco(file, held)
    elif isinstance(held, list):
        entries = _entries(file, held)
    elif _is_by_name(held):
        entries = (
            CaptionedImage(_path(name), _captions(f"{file} ({shown_name(name)})", value))
            for name, value in held.items()
        )
    else:
        raise UserError(f"{file} is no caption list; it must hold {FORMS}")
    images: dict[str, CaptionedImage] = {}
    for entry in entries:
        images.setdefault(entry.image, replace(entry, captions=[])).captions.extend(entry.captions)
    if not images:
        raise UserError(f"{file} lists no image; it must hold {FORMS}")
    return list(images.values())


def _is_list_of_objects(held: Any) -> bool:
    return isinstance(held, list) and bool(held) and all(isinstance(entry, dict) for entry in held)


def _is_by_name(held: Any) -> bool:
    """True for an object from paths to captions, some of which may be broken."""
    named = isinstance(held, dict) and not {"images", "annotations"} & held.keys()
    return named and any(isinstance(value, str | list) for value in held.values())


def _entries(file: str, held: list[Any]) -> Iterator[CaptionedImage]:
    """The entries of an array: an image each, whose captions are a list, or a caption each."""
    seen = set[str]()
    for number, entry in enumerate(held, start=1):
        where = f"{file}, entry {number}"
        image = _of(entry, IMAGE_KEYS)
        if not isinstance(image, str) or not image:
            raise UserError(f'{where} names no image; it must be {{"image": path, "caption": text or texts}}')
        where, captions = f"{where} ({shown_name(image)})", _of(entry, CAPTION_KEYS)
        path = _path(image)
        if isinstance(captions, list) and path in seen:
            count = sum(_path(other) == path for other in (_of(e, IMAGE_KEYS) for e in held) if isinstance(other, str))
            raise UserError(f"{file} lists {path} {count} times; give each image one entry with all texts")
        seen.add(path)
        key = _of(entry, ID_KEYS)
        key = as_id(key, f"the id of {where}") if key is not None else ""
        yield CaptionedImage(path, _captions(where, captions), key=key)


def _coco(file: str, held: dict[str, Any]) -> Iterator[CaptionedImage]:
    """COCO's and NoCaps' form. Ids may be numbers in one place and texts in another."""
    images: dict[str, CaptionedImage] = {}
    for number, image in enumerate(held["images"], start=1):
        where = f"{file}, image {number}"
        name, domain = _of(image, IMAGE_KEYS[1:]), _of(image, ("domain",)) or ""
        if not isinstance(name, str) or not name or not isinstance(domain, str):
            raise UserError(f'{where} names no file; it must be {{"id": number, "file_name": path}}')
        key = as_id(_of(image, ("id",)), f"the id of {where} ({shown_name(name)})")
        if key in images:
            raise UserError(f"{where} ({shown_name(name)}) has the id {key} of another image; give each its own")
        images[key] = CaptionedImage(_path(name), [], domain, key)
    annotations = held.get("annotations") or []
    if not isinstance(annotations, list):
        raise UserError(f"{file} has annotations that are no list; it must hold {FORMS}")
    for number, annotation in enumerate(annotations, start=1):
        where = f"{file}, annotation {number}"
        key = as_id(_of(annotation, ("image_id",)), f"the image_id of {where}")
        if key not in images:
            raise UserError(f"{where} is of the image {key}, which the list has not; take it out")
        caption = as_text(_of(annotation, ("caption",)), f"the caption of {where} ({images[key].image})")
        images[key].captions.append(caption)
    yield from images.values()


def _karpathy(file: str, described: list[Any], splits: Sequence[str]) -> Iterator[CaptionedImage]:
    """Karpathy's file of all splits. An image without a split belongs to each."""
    found = [_of(image, ("split",)) for image in described]
    known = list(dict.fromkeys(split for split in found if isinstance(split, str)))
    if known and not set(splits) & set(known) and None not in found:
        raise UserError(f"{file} has no image of the split {' or '.join(splits)}; it has {', '.join(known)}")
    for number, (image, split) in enumerate(zip(described, found, strict=True), start=1):
        if split is not None and split not in splits:
            continue
        name, folder = _of(image, IMAGE_KEYS[:3]), _of(image, ("filepath",)) or ""
        if not isinstance(name, str) or not name or not isinstance(folder, str):
            raise UserError(f"{file}, image {number} names no file; it must have a filename")
        where, sentences = f"{file}, image {number} ({shown_name(name)})", _of(image, ("sentences",))
        if not isinstance(sentences, list):
            raise UserError(f"{where} has no list of sentences")
        texts = [as_text(_of(sentence, ("raw",)), f"a sentence's raw text of {where}") for sentence in sentences]
        key = _of(image, ("cocoid", "imgid"))
        key = as_id(key, f"the id of {where}") if key is not None else ""
        yield CaptionedImage(_path(f"{folder}/{name}" if folder else name), texts, key=key)


def _of(entry: Any, keys: Sequence[str]) -> Any:
    """The value of the first of the keys that an entry has; None where it has none or is no object."""
    return next((entry[key] for key in keys if key in entry), None) if isinstance(entry, dict) else None


def _captions(where: str, captions: Any) -> list[str]:
    captions = [captions] if isinstance(captions, str | dict) else captions
    if not isinstance(captions, list) or not captions:
        raise UserError(f'{where} has no captions; "caption" must hold one text or more')
    texts = [_of(caption, ("raw", *CAPTION_KEYS)) if isinstance(caption, dict) else caption for caption in captions]
    return [as_text(text, f"a caption of {where}") for text in texts]


def _path(image: str) -> str:
    return PurePosixPath(image).as_posix()


def shown_name(name: str) -> str:
    """A name as an error shows it: not longer than a line."""
    return name if len(name) <= 80 else shown(name)
