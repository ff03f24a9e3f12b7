"""Converts published files into what the tasks read."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlcf.data import names
from rlcf.data.catalogue.captions import DOMAINS
from rlcf.data.catalogue.imagenet import LABELS_FILE
from rlcf.data.check import USUAL_AGREEMENT
from rlcf.data.command import own_command
from rlcf.data.scan import images_below
from rlcf.errors import UserError
from rlcf.failures import not_written
from rlcf.inputs.json_files import read_json, shown
from rlcf.inputs.text_files import read_lines
from rlcf.run.files import to_json, write_atomically

VALIDATION = 50_000


def write_json(file: Path, content: Any) -> Path:
    """Writes a JSON file in one step, and returns its path."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(not_written(file, error)) from error
    write_atomically(file, to_json(content))
    return file


def _caption(value: Any) -> str:
    """Raises TypeError for what is no text."""
    if not isinstance(value, str):
        raise TypeError(f"the caption {shown(value)}")
    return value.strip()


# ---- NoCaps ----


def nocaps(file: Path, output: Path) -> list[Path]:
    """From NoCaps' original list: a list of each domain, and clipscore's references of each and of all.

    Returns the files written: nocaps_val_<images>_<domain>.json and nocaps_val_<images>_<domain>_clipscore.json, and
    nocaps_val_<images>_clipscore.json. Raises UserError for a file that is no such list.
    """
    held = read_json(file)
    try:
        images = {image["id"]: image for image in held["images"]}
        captions: dict[Any, list[str]] = {key: [] for key in images}
        for annotation in held["annotations"]:
            captions[annotation["image_id"]].append(_caption(annotation["caption"]))
        domains = Counter(str(image["domain"]) for image in images.values())
        rows = [(key, str(image["file_name"]), str(image["domain"])) for key, image in images.items()]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{file} is no original list of NoCaps: it needs {{"images": [{{"id", "file_name", "domain"}}], '
            f'"annotations": [{{"image_id", "caption"}}]}} (wrong: {error}); the test set has no captions'
        ) from error
    unknown = set(domains) - set(DOMAINS)
    if unknown:
        raise UserError(f"{file} has images of the domain {min(unknown)}; NoCaps has {', '.join(DOMAINS)}")
    written = []
    for domain, count in domains.items():
        own = [(key, name) for key, name, of in rows if of == domain]
        listed = [{"image": name, "caption": captions[key], "image_id": key} for key, name in own]
        stem = f"nocaps_val_{count}_{domain}"
        written.append(write_json(output / f"{stem}.json", listed))
        written.append(write_json(output / f"{stem}_clipscore.json", {name: captions[key] for key, name in own}))
    everything = {name: captions[key] for key, name, _ in rows}
    return [*written, write_json(output / f"nocaps_val_{len(rows)}_clipscore.json", everything)]


# ---- Karpathy's raw splits ----

LISTS = {"coco": "coco_karpathy_{}.json", "flickr30k": "flickr30k_{}.json"}
SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


def karpathy(file: Path, output: Path) -> list[Path]:
    """From a raw split file (dataset_coco.json, dataset_flickr30k.json): the lists of the three tasks.

    Written: the training list, one entry a caption, for captioners; the validation and test lists, one entry an image,
    for retrieval, captioning and its training; and clipscore's references of the test images. Images' paths are those
    of COCO's and Flickr30k's archives. Raises UserError for a file that is no such split.
    """
    held = read_json(file)
    try:
        kind = str(held.get("dataset") or "")
        if kind not in LISTS:
            raise UserError(f"{file} is a split of '{kind}'; known are {', '.join(LISTS)}")
        rows = [_karpathy_row(kind, image) for image in held["images"]]
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise UserError(
            f'{file} is no raw split of Karpathy\'s: it needs {{"dataset", "images": [{{"filename", "split", '
            f'"sentences": [{{"raw"}}]}}]}} (wrong: {error})'
        ) from error
    written = []
    for split, own in SPLITS.items():
        images = [(image, captions, number) for image, captions, number, of in rows if of in own]
        if not images:
            continue
        if split == "train":
            listed: list[dict[str, Any]] = [
                {"caption": caption, "image": image, "image_id": f"{kind}_{number}"}
                for image, captions, number in images
                for caption in captions
            ]
        else:
            listed = [{"image": image, "caption": captions} for image, captions, _ in images]
        written.append(write_json(output / LISTS[kind].format(split), listed))
        if split == "test":
            references = {image: captions for image, captions, _ in images}
            name = LISTS[kind].format(split).replace(".json", "_clipscore.json")
            written.append(write_json(output / name, references))
    if not written:
        raise UserError(f"{file} has no image of the splits {', '.join(SPLITS)}")
    return written


def _karpathy_row(kind: str, image: Mapping[str, Any]) -> tuple[str, list[str], int, str]:
    """Path, captions, number and split of an image."""
    folder = image.get("filepath") or ("flickr30k-images" if kind == "flickr30k" else "")
    captions = [" ".join(_caption(sentence["raw"]).split()) for sentence in image["sentences"]]
    number = image.get("cocoid", image.get("imgid", 0))
    path = f"{folder}/{image['filename']}" if folder else str(image["filename"])
    return path, [caption for caption in captions if caption], int(number), str(image["split"])


# ---- COCO's results ----


def coco_results(file: Path, listed: Path | None, output: Path) -> Path:
    """From COCO's results, [{"image_id", "caption"}]: clipscore's candidates, {image: caption}.

    listed: a list that tells the images of the ids - COCO's annotations, Karpathy's raw split, or any caption list; an
    image without an id of its own has the number at the end of its file's name. Not needed where ids are file names.
    Raises UserError for an id that the list has not, and for an image with two captions.
    """
    results = read_json(file)
    rows = results if isinstance(results, list) else [None]
    if not all(isinstance(row, dict) and {"image_id", "caption"} <= set(row) for row in rows):
        raise UserError(f'{file} holds no results of COCO\'s form, [{{"image_id", "caption"}}, ...]')
    if not results:
        raise UserError(f"{file} holds no caption")
    images = _images_of_ids(listed) if listed else {}
    candidates: dict[str, str] = {}
    for number, result in enumerate(results, start=1):
        key = result["image_id"]
        image = images.get(_id(key)) or (str(key) if listed is None and Path(str(key)).suffix else None)
        if image is None:
            where = f"{listed} has no image of it" if listed else "give --list, which tells the images of ids"
            raise UserError(f"{file}, entry {number}: image_id {key!r} is no file name; {where}")
        if image in candidates:
            raise UserError(f"{file}, entry {number}: {image} has a second caption; keep one of them")
        if not isinstance(result["caption"], str):
            raise UserError(f"{file}, entry {number}: the caption must be a text and is {shown(result['caption'])}")
        candidates[image] = result["caption"]
    return write_json(output, candidates)


def _id(value: Any) -> str:
    """An image's id without what stands before its number: 42 for 42, "42" and "coco_42"."""
    found = re.search(r"[0-9]+$", str(value))
    return found[0].lstrip("0") or "0" if found else str(value)


def _images_of_ids(listed: Path) -> dict[str, str]:
    """Id -> image's path, of a list in any form."""
    held = read_json(listed)
    rows = held.get("images") if isinstance(held, dict) else held
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{listed} is no list of images")
    images = {}
    for row in rows:
        name = row.get("image") or row.get("file_name") or row.get("filename")
        if not isinstance(name, str):
            raise UserError(f"{listed} has an entry without an image: {shown(row)}")
        path = f"{row['filepath']}/{name}" if row.get("filepath") else name
        ids = [row[key] for key in ("id", "cocoid", "image_id") if key in row]
        images[_id(ids[0] if ids else Path(name).stem)] = path
    return images


# ---- ImageNet's validation images ----


def imagenet_val(flat: Path, labels: Path | None, output: Path, hard: bool = False) -> int:
    """Class folders of a folder that holds all of ImageNet's validation images, by links to them.

    labels: a file that tells the classes: a WordNet id a line, Kaggle's LOC_val_solution.csv, lines "image id" (a
    WordNet id, or a class index from 0), or lines "mv IMAGE ID/" of a shell script. Not needed where the names end in a
    WordNet id, as in Hugging Face's archive. output: the folder that gets the class folders; where it is `flat` itself,
    the images are moved to a folder beside it first, NAME-flat. hard: hard links in place of symbolic ones; they need
    the same disk.
    Returns the number of images. Raises UserError when a label is missing, and when the labels are not those that
    people saw in the images.
    """
    aside = flat.with_name(f"{flat.name}-flat")
    in_place = flat.absolute() == output.absolute()
    if in_place and aside.is_dir():  # a conversion that was stopped
        flat, in_place = aside, False
    placed = _classes_of(flat, labels, output)
    if in_place:
        try:
            flat.rename(aside)
        except OSError as error:
            raise UserError(f"cannot rename {flat} to {aside} ({error.strerror})") from error
        placed = {aside / image.relative_to(flat): wnid for image, wnid in placed.items()}
    for image, wnid in placed.items():
        link(image, output / wnid / image.name, hard)
    return len(placed)


def _classes_of(flat: Path, labels: Path | None, output: Path) -> dict[Path, str]:
    """The validation images below a folder, and the WordNet id of each. Raises UserError as `imagenet_val`."""
    if not flat.is_dir():
        raise UserError(f"there is no folder {flat}")
    images = [image for image in images_below(flat) if re.match(r"ILSVRC2012_val_\d{8}", image.name)]
    if not images:
        raise UserError(f"{flat} holds no image named ILSVRC2012_val_00000001.JPEG and so on")
    labels = labels or _labels_near(flat, output)
    table = _read_labels(labels) if labels else {}
    classes = set(names.wnids())
    placed: dict[Path, str] = {}
    for image in images:
        named = re.search(r"_(n\d{8})\.\w+$", image.name)
        wnid = table.get(_number(image.name)) or (named[1] if named else None)
        if wnid not in classes:
            told = f"{labels} has no class of {image.name}" if labels else "their names do not tell their classes"
            raise UserError(
                f"the images of {flat} cannot be sorted: {told}; give --labels, or get a file of them: "
                f"{own_command()} get imagenet-labels"
            )
        placed[image] = str(wnid)
    _require_agreement(placed, labels or flat)
    return placed


def link(image: Path, place: Path, hard: bool) -> None:
    """Makes a link to an image; one that is there is left. Raises UserError when it cannot be made."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            if place.samefile(image):
                return
            place.unlink()
        if hard:
            place.hardlink_to(image.resolve())
        else:
            place.symlink_to(image.resolve())
    except OSError as error:
        why = f"cannot make the link {place} ({error.strerror})"
        raise UserError(f"{why}; try {'another disk' if hard else '--hard-links'}") from error


def _number(name: str) -> int:
    return int(name[len("ILSVRC2012_val_") :][:8])


def _labels_near(flat: Path, output: Path) -> Path | None:
    """A label file beside the images, or where `rlcf-data get imagenet-labels` puts it."""
    folders = (flat, flat.parent, output.parent)
    known = (LABELS_FILE, "LOC_val_solution.csv", "valprep.sh")
    return next((folder / name for folder in folders for name in known if (folder / name).is_file()), None)


def _read_labels(file: Path) -> dict[int, str]:
    """Number of a validation image -> WordNet id."""
    lines = read_lines(file)
    if all(re.fullmatch(r"n\d{8}", line) for line in lines):
        if len(lines) != VALIDATION:
            raise UserError(f"{file} has {len(lines):,} lines, a class each; there are {VALIDATION:,} images")
        return dict(enumerate(lines, start=1))
    if all(line.isdecimal() for line in lines):
        raise UserError(
            f"{file} has numbers alone, which the development kit counts in another order than everybody else; "
            f"get labels by WordNet id: {own_command()} get imagenet-labels"
        )
    table = {}
    for line in (line.replace(",", " ") for line in lines):
        image, wnid = re.search(r"ILSVRC2012_val_(\d{8})", line), re.search(r"\bn\d{8}\b", line)
        index = re.search(r"\s(\d{1,3})\s*$", line)
        if image and (wnid or index):
            table[int(image[1])] = wnid[0] if wnid else names.wnids()[int(index[1])]  # type: ignore[index]
    if not table:
        raise UserError(f"{file} tells no image's class: lines such as 'ILSVRC2012_val_00000293.JPEG n01440764' do")
    return table


def _require_agreement(placed: Mapping[Path, str], told_by: Path) -> None:
    """Raises UserError if most of the labels are not what people saw in the images: they are shifted then."""
    index = {wnid: i for i, wnid in enumerate(names.wnids())}
    seen: Iterable[tuple[str, frozenset[int]]] = (
        (wnid, names.real_labels()[_number(image.name) - 1])
        for image, wnid in placed.items()
        if 0 < _number(image.name) <= VALIDATION
    )
    agreed = [index[wnid] in labels for wnid, labels in seen if labels]
    if len(agreed) >= 20 and sum(agreed) / len(agreed) < USUAL_AGREEMENT - 0.2:
        raise UserError(
            f"the labels of {told_by} are not those of the images: people confirm {sum(agreed) / len(agreed):.0%} of "
            "them, usually about 90%; use another file of labels"
        )
