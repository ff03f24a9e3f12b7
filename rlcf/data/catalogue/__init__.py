"""The catalogue: every dataset, list and weight file that the project knows.

Sources. Sizes and sha256 of datasets: TensorFlow Datasets' lists of checksums. md5: torchvision and LAVIS. sha256 of
OpenAI's weights: they are a part of their addresses. Numbers of images: the datasets' papers, and CoOp (Zhou et al.,
IJCV 2022, table 6) for the fine-grained sets. A checksum that nobody has published is None.
"""

import difflib

from rlcf.data.catalogue.captions import CAPTIONED, DOMAINS
from rlcf.data.catalogue.fine_grained import FINE_GRAINED
from rlcf.data.catalogue.imagenet import CORRUPTIONS, IMAGENET, LABELS
from rlcf.data.catalogue.weights import CLIPS, OPENAI_FILES, OTHERS
from rlcf.data.command import own_command
from rlcf.data.entries import Entry
from rlcf.errors import UserError

CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (*IMAGENET, *CORRUPTIONS, LABELS, *FINE_GRAINED, *CAPTIONED, *CLIPS, *OTHERS)
}  # fmt: skip
"""Name -> entry."""
ALIASES = {
    "imagenet": "I",
    "imagenet-a": "A",
    "imagenet-v2": "V",
    "imagenetv2": "V",
    "imagenet-r": "R",
    "imagenet-sketch": "K",
    "imagenet-c": "C",
    "facebook/opt-125m": "opt-125m",
    **{f"nocaps-{domain}": "nocaps" for domain in DOMAINS},
    **{file.removesuffix(".pt"): name for name, (file, _, _) in OPENAI_FILES.items()},
    **{file: name for name, (file, _, _) in OPENAI_FILES.items()},
}
"""Other names of entries, in small letters where an entry's name is."""


def known(name: str) -> Entry | None:
    """The entry of a name or an alias, in small or capital letters; None when there is none."""
    if name in CATALOGUE:
        return CATALOGUE[name]
    named = {alias.lower(): entry for alias, entry in {**{key: key for key in CATALOGUE}, **ALIASES}.items()}
    return CATALOGUE.get(named.get(name.lower(), ""))


def entry_of(name: str) -> Entry:
    """The entry of a name or an alias. Raises UserError with the names that there are."""
    found = known(name)
    if found is None:
        names = [*CATALOGUE, *ALIASES]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        advice = f"did you mean '{near[0]}'? " if near else ""
        raise UserError(f"unknown name '{name}'; {advice}there are {', '.join(CATALOGUE)}")
    return found


def siblings_of(entry: Entry) -> tuple[Entry, ...]:
    """The other entries that belong into the same folder as this one."""
    return tuple(other for other in CATALOGUE.values() if other is not entry and other.base == entry.base)


def remedy(name: str) -> str:
    """The end of a sentence that tells that a dataset is missing; empty for one that is not in the catalogue."""
    entry = known(name)
    if entry is None:
        return ""
    get = f"'{own_command()} get {entry.name}'"
    return f"; {get} with this --data gets it or tells how, with check for get it tells what is wrong"
