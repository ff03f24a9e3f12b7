"""Names of ImageNet's classes, and whether names and folders fit together. No model is asked."""

import importlib.util
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

COMPARABLE = 0.5
"""Share of the classes whose folder must share a word with some name, so that folders and names can be compared."""


def _package(name: str) -> Path:
    """The folder of an installed package, which is not imported: that takes seconds."""
    found = importlib.util.find_spec(name)
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


def _lines(file: str) -> list[str]:
    return (_package("timm") / "data" / "_info" / file).read_text(encoding="utf-8").split("\n")


@cache
def wnids(subset: str = "") -> tuple[str, ...]:
    """ImageNet's 1000 WordNet ids, class i the i-th; of a subset, "a" or "r", its 200. They are sorted."""
    file = f"imagenet_{subset}_synsets.txt" if subset else "imagenet_synsets.txt"
    return tuple(sorted(line.strip() for line in _lines(file) if line.strip()))


@cache
def lemmas() -> Mapping[str, str]:
    """WordNet id -> its English words in WordNet."""
    pairs = (line.split("\t", 1) for line in _lines("imagenet_synset_to_lemma.txt") if "\t" in line)
    return {wnid: words.strip() for wnid, words in pairs}


@cache
def real_labels() -> tuple[frozenset[int], ...]:
    """The classes that people saw in each image of ImageNet's validation set (Beyer et al., 2020); none in some."""
    return tuple(frozenset(labels) for labels in json.loads("\n".join(_lines("imagenet_real_labels.json"))))


def _held(package: str, file: str, name: str) -> Any:
    """A constant of a module that holds nothing but data, without its package."""
    spec = importlib.util.spec_from_file_location(f"_{name}", _package(package) / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


@cache
def clip_names() -> tuple[str, ...]:
    """The names that CLIP's authors gave ImageNet's 1000 classes, from open_clip."""
    return tuple(_held("open_clip", "zero_shot_metadata.py", "IMAGENET_CLASSNAMES"))


@cache
def torchvision_names() -> tuple[str, ...]:
    """torchvision's names of ImageNet's 1000 classes."""
    return tuple(_held("torchvision", "models/_meta.py", "_IMAGENET_CATEGORIES"))


def words_of(text: str) -> frozenset[str]:
    """The words of a name or a path, in small letters, without plural s and accents.

    >>> sorted(words_of("Sailing_ships/OldBoat_001"))
    ['boat', 'old', 'sailing', 'ship']
    """
    plain = unicodedata.normalize("NFKD", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text))
    found = re.findall(r"[^\W\d_]+", "".join(c for c in plain if not unicodedata.combining(c)).lower())
    return frozenset(word[:-1] if len(word) > 3 and word.endswith("s") else word for word in found)


def mismatched(folders: Sequence[str], names: Sequence[str]) -> list[tuple[str, str, str]] | None:
    """The folders whose words fit another name better than their own.

    folders: what each class's folder or paths are called; names: the name of each class. Returns (folder, its name, the
    name that fits) of each; None where too few folders share a word with any name, such as numbered ones.
    """
    sets = [words_of(name) for name in names]
    weight = {word: 1 / count for word, count in Counter(word for words in sets for word in words).items()}
    index: dict[str, list[int]] = {}
    for i, words in enumerate(sets):
        for word in words:
            index.setdefault(word, []).append(i)

    def score(folder: frozenset[str], i: int) -> float:
        shared = sum(weight[word] for word in folder & sets[i])
        return shared / (len(folder | sets[i]) or 1)

    wrong, comparable = [], 0
    for i, folder in enumerate(folders):
        words = words_of(folder)
        near = {j for word in words for j in index.get(word, [])}
        if not near:
            continue
        comparable += 1
        best = max(near, key=lambda j: (score(words, j), j == i))
        if score(words, best) > score(words, i):
            wrong.append((folder, names[i], names[best]))
    return wrong if comparable >= COMPARABLE * len(folders) else None


def offset_of(pairs: Iterable[tuple[int, int]]) -> tuple[int, float]:
    """The commonest difference of (label that is, label that should be), and its share."""
    counted = Counter(should - label for label, should in pairs)
    if not counted:
        return 0, 0.0
    offset, times = counted.most_common(1)[0]
    return offset, times / counted.total()


def libraries_disagree() -> dict[str, int]:
    """Library -> in how many of ImageNet's classes its name has no word of WordNet's. A few are renamed on purpose."""
    order = [words_of(lemmas()[wnid]) for wnid in wnids()]
    lists = {"open_clip": clip_names(), "torchvision": torchvision_names()}
    return {
        library: sum(not words_of(name) & words for name, words in zip(names, order, strict=True))
        for library, names in lists.items()
    }
