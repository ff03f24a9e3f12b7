"""Checks what is there against what the catalogue expects, and tells what would mend it."""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlcf.data import names
from rlcf.data.catalogue.captions import DOMAINS, NOCAPS_DOMAIN_FILES, NOCAPS_FILE
from rlcf.data.catalogue.weights import OPENAI_FILES
from rlcf.data.entries import Entry, Machine, has_class_folders
from rlcf.data.fetch import digest_of_file
from rlcf.data.scan import class_folders, images_below, images_in, unreadable
from rlcf.errors import UserError
from rlcf.inputs.class_names import read_classnames, read_names
from rlcf.inputs.folders import split_among
from rlcf.inputs.json_files import read_json
from rlcf.inputs.lists import CaptionedImage, read_captions
from rlcf.inputs.places import as_it_lies, image_folders, is_there
from rlcf.inputs.text_files import read_lines

USUAL_AGREEMENT = 0.9
"""Share of ImageNet's validation images whose label people confirm (Beyer et al., 2020)."""


@dataclass
class Report:
    """What was found of a dataset or a file.

    right, wrong: sentences. mend: commands or steps that would help. samples, classnames: the labelled images and the
    classes' names, for a look with a model.
    """

    name: str
    place: Path | None = None
    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    mend: list[str] = field(default_factory=list)
    samples: list[tuple[Path, int]] = field(default_factory=list)
    classnames: list[str] = field(default_factory=list)

    def count(self, have: int, want: int | None, what: str) -> None:
        """Notes a number that should be another, or that is right."""
        if want is None or have == want:
            self.right.append(f"{have:,} {what}")
        else:
            self.wrong.append(f"{have:,} {what} in place of {want:,}")

    def lines(self) -> list[str]:
        """What is printed."""
        state = "wrong" if self.wrong else "all right"
        place = f", in {self.place}" if self.place and str(self.place) != self.name else ""
        told = [f"{self.name}: {state}{place}"]
        told += [f"  {sentence}" for sentence in self.right]
        told += [f"  wrong: {sentence}" for sentence in self.wrong]
        return told + ([f"  to mend: {step}" for step in dict.fromkeys(self.mend)] if self.wrong else [])


def check(entry: Entry, machine: Machine, command: str) -> Report:
    """Checks an entry that should be on the machine. command: how this program is called."""
    report = Report(entry.name, machine.locate(entry))
    get = f"{command} get {entry.name}{machine.flags}"
    if report.place is None:
        flat = next((place for place in machine.places(entry) if place.is_dir() and _is_flat(place)), None)
        if entry.name == "I" and flat is not None:
            report.wrong.append(f"{flat} holds images and no class folders")
            report.mend.append(f"{command} convert imagenet-val {shlex.quote(str(flat.absolute()))}{machine.flags}")
            return report
        report.wrong.append(f"not there; looked at {_few([str(place) for place in machine.places(entry)])}")
        report.mend.append(get)
        return report
    try:
        CHECKS[entry.kind](entry, report.place, report)
    except UserError as error:
        report.wrong.append(str(error))
    if report.wrong and not report.mend:
        first = f"take {report.place} away" if entry.kind == "class folders" else "take away what is there and wrong"
        report.mend.append(f"{first}, then: {get}")
    return report


def _is_flat(folder: Path) -> bool:
    return not has_class_folders(folder) and bool(images_in(folder))


# ---- folders of labelled images ----


def _class_folders(entry: Entry, root: Path, report: Report) -> None:
    if entry.name == "C":
        for corruption in class_folders(root):
            for severity in class_folders(root / corruption):
                part = Report(f"{corruption}/{severity}")
                _one_imagenet(entry, root / corruption / severity, part)
                report.right += [f"{part.name}: {said}" for said in part.right]
                report.wrong += [f"{part.name}: {said}" for said in part.wrong]
                report.samples, report.classnames = part.samples, part.classnames
        return
    _one_imagenet(entry, root, report)


def _one_imagenet(entry: Entry, root: Path, report: Report) -> None:
    assert entry.expected is not None
    ids = names.wnids(entry.name.lower()) if entry.name in ("A", "R") else names.wnids()
    known = [str(i) for i in range(1000)] if entry.name == "V" else list(ids)
    label_of = {folder: i for i, folder in enumerate(known)}
    present = class_folders(root)
    strange, missing = [f for f in present if f not in label_of], [f for f in known if f not in present]
    report.count(len(present) - len(strange), entry.expected.classes, "class folders")
    if strange:
        report.wrong.append(f"{len(strange)} folders are no class of {entry.title}: {_few(strange)}")
        _why_strange(entry, set(strange), missing, report)
    elif missing:
        report.wrong.append(f"{len(missing)} classes have no folder: {_few(missing)}")
    report.classnames = [names.clip_names()[names.wnids().index(wnid)] for wnid in ids]
    held = {folder: images_below(root / folder) for folder in present if folder in label_of}
    report.samples = [(file, label_of[folder]) for folder, files in held.items() for file in files]
    _images(report, [file for file, _ in report.samples], entry.expected.images)
    empty = [folder for folder, files in held.items() if not files]
    if empty:
        report.wrong.append(f"{len(empty)} class folders hold no image: {_few(empty)}")
    each = entry.expected.each
    uneven = [f for f, files in held.items() if each and files and len(files) != each]
    if uneven:
        report.wrong.append(f"{len(uneven)} class folders do not hold {each} images: {_few(uneven)}")
    loose = images_in(root)
    if loose:
        report.wrong.append(f"{len(loose)} images lie beside the class folders: {_few([f.name for f in loose])}")
    _validation_labels(report)
    _libraries(report)


def _why_strange(entry: Entry, strange: set[str], missing: list[str], report: Report) -> None:
    """Kinds of wrong folders that are known."""
    if entry.name != "V":
        if strange <= {str(i) for i in range(1001)}:
            report.wrong.append("the folders are numbers; ImageNet's are WordNet ids such as n01440764")
        return
    if all(re.fullmatch(r"n\d{8}", folder) for folder in strange):
        report.wrong.append("it is the release of December 2020, with WordNet ids and 20 images a class")
    elif strange == {"1000"} and missing == ["0"]:
        report.wrong.append("the folders are numbered from 1: every label would be one too high")
    elif all(folder.isdecimal() and str(int(folder)) != folder for folder in strange):
        report.wrong.append("the folders' numbers have leading zeros")


def _validation_labels(report: Report) -> None:
    """Compares the folders of ImageNet's validation images, which are numbered, with what people saw in them."""
    pairs = []
    for file, label in report.samples:
        number = re.match(r"ILSVRC2012_val_(\d{8})", file.name)
        seen = names.real_labels()[int(number[1]) - 1] if number and 0 < int(number[1]) <= 50_000 else frozenset()
        if seen:
            pairs.append((label, label if label in seen else min(seen)))
    if not pairs:
        return
    agreed = sum(label == should for label, should in pairs) / len(pairs)
    told = f"{agreed:.0%} of {len(pairs):,} labels are what people saw in the images (usual: about 90%)"
    if agreed > USUAL_AGREEMENT - 0.2:
        report.right.append(told)
        return
    offset, share = names.offset_of(pairs)
    shifted = f"; {share:.0%} would be right if shifted by {offset:+d}" if offset and share > 0.3 else ""
    report.wrong.append(f"only {told}: images are not in the folders of their classes{shifted}")


def _libraries(report: Report) -> None:
    """The installed lists of ImageNet's names must be in the order of the WordNet ids."""
    for library, count in names.libraries_disagree().items():
        if count > 100:
            report.wrong.append(f"{count} of {library}'s 1000 class names are not those of their WordNet ids")
            report.mend.append(f"install another version of {library}: its list of names is in another order")


def check_folder(root: Path, classnames: Path | None = None) -> Report:
    """Checks a folder of class folders, and whether a file of names fits them.

    Raises UserError for another folder.
    """
    report = Report(str(root), root)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    if not has_class_folders(root):
        raise UserError(f"{root} holds no class folders; give the folder that holds a folder of images a class")
    folders = class_folders(root)
    split = split_among(root, folders)
    if split:
        raise UserError(f"{root} holds splits and no classes ({', '.join(folders)}); give one: folder:{root / split}")
    held = [images_below(root / folder) for folder in folders]
    report.samples = [(file, label) for label, files in enumerate(held) for file in files]
    report.count(len(folders), None, "class folders")
    _images(report, [file for file, _ in report.samples], None)
    empty = [folder for folder, files in zip(folders, held, strict=True) if not files]
    if empty:
        report.wrong.append(f"{len(empty)} class folders hold no image: {_few(empty)}")
        report.mend.append("fill these folders or delete them")
    ids = dict(zip(names.wnids(), names.clip_names(), strict=True))
    called = [ids.get(folder, folder.replace("_", " ")) for folder in folders]
    report.classnames = called
    if classnames is not None:
        report.classnames = read_names(classnames)
        try:
            report.classnames = read_classnames(classnames, folders)
            report.count(len(folders), None, "class names")
        except UserError as error:  # names that may be of other folders: a look at the images tells more
            report.wrong.append(str(error))
        if len(report.classnames) == len(folders):
            _compare(called, report.classnames, report, f"the folders and the names of {classnames}")
    return report


def _compare(called: list[str], given: list[str], report: Report, what: str) -> None:
    """Tells whether classes' folders have words of their own names."""
    wrong = names.mismatched(called, given)
    if wrong is None:
        report.right.append(f"{what} have no words in common: use --clip NAME to look at a few images")
    elif len(wrong) > len(given) / 4:
        folder, own, better = wrong[0]
        report.wrong.append(
            f"{what} do not fit together in {len(wrong)} of {len(given)} classes: '{folder}' is called '{own}' and "
            f"should be '{better}'; every image of such a class is given a wrong label"
        )
        report.mend.append("bring the names into the order of the folders")
    else:
        report.right.append(f"{what} fit together")


# ---- lists ----


def _split(entry: Entry, root: Path, report: Report) -> None:
    """A dataset in CoOp's layout."""
    file = root / str(entry.files[0])
    try:
        held = read_json(file)
        test = [(str(path), int(label), str(name)) for path, label, name in held["test"]]
        classes = {int(label): str(name).replace("_", " ") for part in held.values() for _, label, name in part}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f'{file} is no split file: it needs {{"test": [[path, label, class name], ...]}}') from error
    _listed(entry, [(root / entry.images / path, label) for path, label, _ in test], classes, report)
    paths = {label: Path(path).parent.name or Path(path).stem for path, label, _ in test}
    if sorted(paths) == list(range(len(paths))):
        called, given = [paths[label] for label in sorted(paths)], [classes[label] for label in sorted(paths)]
        _compare(called, given, report, "the images' folders and the classes' names")


def _aircraft(entry: Entry, root: Path, report: Report) -> None:
    variants, lines = read_lines(root / "variants.txt"), read_lines(root / "images_variant_test.txt")
    label_of = {variant: i for i, variant in enumerate(variants)}
    pairs = [line.partition(" ")[::2] for line in lines]
    unknown = [variant for _, variant in pairs if variant not in label_of]
    if unknown:
        report.wrong.append(f"images_variant_test.txt names variants that variants.txt has not: {_few(unknown)}")
    files = [(root / entry.images / f"{image}.jpg", label_of.get(variant, -1)) for image, variant in pairs]
    _listed(entry, files, dict(enumerate(variants)), report)


def _listed(entry: Entry, samples: list[tuple[Path, int]], classes: dict[int, str], report: Report) -> None:
    assert entry.expected is not None
    report.count(len(samples), entry.expected.images, "test images in the list")
    report.count(len(classes), entry.expected.classes, "classes")
    if sorted(classes) != list(range(len(classes))):
        report.wrong.append("the labels do not run from 0 without a gap")
    there = _existing(report, [file for file, _ in samples])
    report.samples = [(file, label) for file, label in samples if file in there]
    report.classnames = [classes[label] for label in sorted(classes)]


def _captions(entry: Entry, root: Path, report: Report) -> None:
    assert entry.expected is not None
    file = next(root / name for name in entry.files[0] if (root / name).is_file())
    _caption_list(file, read_captions(file), entry.expected.images, entry.expected.captions, report)


def _nocaps(entry: Entry, root: Path, report: Report) -> None:
    assert entry.expected is not None
    listed = [root / sub / NOCAPS_FILE for sub in ("", "annotations") if (root / sub / NOCAPS_FILE).is_file()]
    if listed:
        images = read_captions(listed[0])
        _caption_list(listed[0], images, entry.expected.images, entry.expected.captions, report)
        for domain, count in DOMAINS.items():
            report.count(sum(image.domain == domain for image in images), count, f"images of {domain}")
        return
    for domain, name in NOCAPS_DOMAIN_FILES.items():
        file = next((root / sub / name for sub in ("", "annotations") if (root / sub / name).is_file()), None)
        if file is None:
            report.wrong.append(f"there is no {name}")
        else:
            _caption_list(file, read_captions(file), DOMAINS[domain], None, report)


def _caption_list(file: Path, images: list[CaptionedImage], count: int, captions: int | None, report: Report) -> None:
    report.count(len(images), count, f"images in {file.name}")
    report.count(sum(len(image.captions) for image in images), captions, f"captions in {file.name}")
    roots, first = image_folders(file), images[0].image
    root = next((root for root in roots if is_there(root / as_it_lies(root, first))), roots[0])
    _existing(report, [root / as_it_lies(root, image.image) for image in images])


def _existing(report: Report, files: list[Path]) -> set[Path]:
    """Notes files that are not there, and returns those that are."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        report.wrong.append(f"{len(missing):,} of {len(files):,} listed images are not there, such as {missing[0]}")
    gone = set(missing)
    there = [file for file in files if file not in gone]
    if there:
        _images(report, there, None)
    return set(there)


def _images(report: Report, files: list[Path], want: int | None) -> None:
    report.count(len(files), want, "images")
    bad = unreadable(files)
    if bad:
        report.wrong.append(f"{len(bad)} of the images looked at are empty or no image, such as {bad[0]}")


# ---- weights and other files ----


def _clip(entry: Entry, file: Path, report: Report) -> None:
    digest = digest_of_file(file).removeprefix("sha256:")
    owners = {sha256: name for name, (_, sha256, _) in OPENAI_FILES.items()}
    if owners.get(digest) == entry.name:
        report.right.append("OpenAI's file, by its sha256")
    elif digest in owners:
        report.wrong.append(f"it is OpenAI's {owners[digest]} under another name")
        report.mend.append(f"name it {OPENAI_FILES[owners[digest]][0]}, and get {entry.name}")
    elif entry.about_bytes and file.stat().st_size < 0.9 * entry.about_bytes:
        report.wrong.append(
            f"its sha256 is not OpenAI's, and with {file.stat().st_size:,} bytes it is too short: a broken-off download"
        )
    else:
        report.right.append(f"not OpenAI's file (sha256 {digest}): weights saved anew, or another model's")


def _files(entry: Entry, root: Path, report: Report) -> None:
    for one in entry.files:
        choices = (one,) if isinstance(one, str) else one
        found = next(root / name for name in choices if (root / name).exists())
        if found.is_file() and not found.stat().st_size:
            report.wrong.append(f"{found.name} is empty")
        else:
            report.right.append(f"{found.name} is there")


def _few(items: list[str]) -> str:
    """The first three, and how many more."""
    return ", ".join(items[:3]) + (f" and {len(items) - 3} more" if len(items) > 3 else "")


CHECKS: Mapping[str, Callable[[Entry, Path, Report], Any]] = {
    "class folders": _class_folders,
    "split": _split,
    "aircraft": _aircraft,
    "captions": _captions,
    "nocaps": _nocaps,
    "clip": _clip,
    "files": _files,
}
"""Kind of an entry -> what checks it."""
