"""Features of a caption dataset: what caption/extract_features.py writes, and the published pickles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlcf.clip.weights import read_pickle, read_weights
from rlcf.digests import digest_of, digest_of_tensors
from rlcf.errors import UserError
from rlcf.run.files import write_atomically
from rlcf.run.tensor_files import save_atomically

FEATURES_FILE, CAPTIONS_FILE = "features.safetensors", "captions.json"


@dataclass(frozen=True)
class Features:
    """Captions with the CLIP features of their images and of themselves; either may be missing.

    captions: N of them; image: (I, D), text: (T, D); image_index, text_index: of each caption the row of its feature;
    student: the CLIP that they are of, where that is known.
    """

    captions: list[str]
    image_index: list[int]
    text_index: list[int]
    image: Tensor | None = None
    text: Tensor | None = None
    student: str = ""

    def of_captions(self, kind: str, source: str) -> Tensor:
        """Each caption's feature, (N, D). kind: "image" or "text"; source: what the error calls the features.

        Raises UserError when there are none of that kind.
        """
        features, index = (self.image, self.image_index) if kind == "image" else (self.text, self.text_index)
        if features is None:
            raise UserError(f"{source} holds no {kind} features; extract them with caption/extract_features.py")
        return features[torch.tensor(index)]

    @property
    def digest(self) -> str:
        """A digest of all that they hold, 64 characters."""
        tensors = {"image": self.image, "text": self.text}
        held = digest_of_tensors({name: tensor for name, tensor in tensors.items() if tensor is not None})
        return digest_of([self.captions, self.image_index, self.text_index, self.student, held])


def write_features(folder: Path, features: Features) -> None:
    """features.safetensors and captions.json, whole or not at all."""
    tensors = {"image": features.image, "text": features.text}
    save_atomically(folder / FEATURES_FILE, {k: v.contiguous() for k, v in tensors.items() if v is not None})
    names = ("captions", "image_index", "text_index", "student", "digest")
    listed = {name: getattr(features, name) for name in names}
    write_atomically(folder / CAPTIONS_FILE, json.dumps(listed, ensure_ascii=False) + "\n")


def read_features(path: str) -> Features:
    """The features that a folder of caption/extract_features.py or a published pickle holds.

    Raises UserError for anything else, and for what does not fit together.
    """
    source = Path(path).expanduser()
    if source.is_dir():
        held: Any = {**_listed(source / CAPTIONS_FILE), **read_weights(source / FEATURES_FILE)}
    elif source.suffix in (".pkl", ".pickle"):
        held = _published(source)
    else:
        raise UserError(f"no features {source}; give a folder that caption/extract_features.py wrote, or a .pkl file")
    try:
        image, text = (None if held.get(kind) is None else held[kind].float() for kind in ("image", "text"))
        features = Features(
            [str(caption) for caption in held["captions"]],
            [int(i) for i in held["image_index"]],
            [int(i) for i in held["text_index"]],
            image,
            text,
            str(held.get("student", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{source} holds no caption features ({type(error).__name__}: {error})") from error
    _check(features, source)
    if held.get("digest", features.digest) != features.digest:
        raise UserError(
            f"{FEATURES_FILE} and {CAPTIONS_FILE} of {source} are not as they were written together; delete "
            f"{CAPTIONS_FILE} and extract the features again"
        )
    return features


def _check(features: Features, source: Path) -> None:
    n = len(features.captions)
    if not n:
        raise UserError(f"{source} holds no caption")
    empty = next((i for i, caption in enumerate(features.captions) if not caption.strip()), None)
    if empty is not None:
        raise UserError(f"caption {empty} of {source} is empty; extract the features again without it")
    odd = next((i for i, caption in enumerate(features.captions) if not caption.isascii() and _is_torn(caption)), None)
    if odd is not None:
        raise UserError(f"caption {odd} of {source} holds half a character; extract the features again without it")
    for kind, index in (("image", features.image_index), ("text", features.text_index)):
        rows: Tensor | None = getattr(features, kind)
        count = 2**31 if rows is None else len(rows) if rows.dim() == 2 else 0
        if len(index) != n or min(index) < 0 or max(index) >= count:
            raise UserError(f"the {kind} features of {source} do not go with its {n} captions; extract them again")
        if rows is not None and not rows.isfinite().all():
            raise UserError(f"the {kind} features of {source} are not finite; extract them again")


def _is_torn(text: str) -> bool:
    """True for a text with a surrogate, half of a pair, which no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _listed(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UserError(f"{file.parent} holds no {CAPTIONS_FILE}; let caption/extract_features.py finish it")
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is damaged; delete it and extract the features again") from error


def _published(file: Path) -> dict[str, Any]:
    """The authors' pickle: a dict of features, captions and their indices."""
    if not file.is_file():
        raise UserError(f"no features {file}")
    try:
        with file.open("rb") as stream:
            held, unread = read_pickle(stream, file.stat().st_size)
    except Exception as error:  # damaged bytes fail in many ways
        raise UserError(f"{file} is damaged or no pickle; extract the features again") from error
    if unread:
        raise UserError(
            f"{file} holds a {min(unread)}, which is not loaded: only tensors, lists, strings and numbers are; write "
            "the features anew with caption/extract_features.py"
        )
    if not isinstance(held, dict) or not isinstance(held.get("captions"), list):
        raise UserError(f"{file} holds no caption features: it needs a dict with 'captions' and 'clip_text_embedding'")
    every = range(len(held["captions"]))
    return {
        "captions": held["captions"],
        "image": _tensor(held.get("clip_image_embedding"), file),
        "text": _tensor(held.get("clip_text_embedding"), file),
        "image_index": _or(held.get("image_index"), every),
        "text_index": _or(held.get("text_index"), every),
    }


def _tensor(value: Any, file: Path) -> Tensor | None:
    """A matrix; published pickles may hold a list of rows. Raises UserError for rows that make no matrix."""
    if not isinstance(value, list | tuple):
        return value
    try:
        return torch.stack([row.flatten() for row in value]) if value else None
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"{file} holds features of unequal length or kind; extract them again") from error


def _or(value: Any, otherwise: Sequence[int]) -> Sequence[int]:
    return otherwise if value is None else value
