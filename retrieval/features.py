"""Features that stay frozen: computed once a model, in batches, and kept in the run folder."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from retrieval.datasets import Dataset
from rlcf.clip.backbone import Backbone
from rlcf.run.files import save_atomically, writing
from rlcf.run.images import encode_images
from rlcf.run.shard import Shard


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of a dataset's images and texts by models as they were loaded.

    Each file of the folder holds one model's features of the images or of the texts, with a key of all that they depend
    on. Where the key has changed, or the file is damaged, they are computed anew. Of several processes the first
    computes and the others wait.
    view: the model whose evaluation view of an image all models see; weights: each model's `weights_digest` by its
    name; skip_bad_images: features of an image that cannot be read are NaN.
    """

    folder: Path
    dataset: Dataset
    view: Backbone
    weights: dict[str, str]
    shard: Shard
    workers: int = 2
    skip_bad_images: bool = False

    def images(self, clips: Sequence[Backbone], wanted: Sequence[int]) -> list[Tensor]:
        """Features of the images `wanted`, (len(wanted), D) a model, unit length."""
        files = [self.dataset.files[index] for index in wanted]
        stamps = [_stamp(file) for file in files]
        known = {"list": [self.dataset.ids[index] for index in wanted], "files": stamps, "view": self.view.preprocess}

        def encode(models: Sequence[Backbone]) -> list[Tensor]:
            desc = f"images of {self.dataset.name}: {', '.join(model.name for model in models)}"
            return encode_images(models, files, self.workers, desc=desc, view=self.view, skip_bad=self.skip_bad_images)

        return self._kept("images", clips, known, encode)

    def texts(self, clips: Sequence[Backbone], wanted: Sequence[int]) -> list[Tensor]:
        """Features of the texts `wanted`, (len(wanted), D) a model, unit length."""
        texts = [self.dataset.texts[index] for index in wanted]

        def encode(models: Sequence[Backbone]) -> list[Tensor]:
            return [model.encode_text(texts, f"texts of {self.dataset.name}: {model.name}") for model in models]

        return self._kept("texts", clips, {"list": texts}, encode)

    def _kept(
        self,
        kind: str,
        clips: Sequence[Backbone],
        known: dict[str, Any],
        encode: Callable[[Sequence[Backbone]], list[Tensor]],
    ) -> list[Tensor]:
        """Features from the files, after those that are missing or stale are written."""
        names = [f"{self.dataset.name}-{kind}-{clip.name}".strip("/") for clip in clips]
        files = [self.folder / (re.sub(r"[^\w.-]+", "-", name) + ".safetensors") for name in names]
        keys = [self._key(clip, known) for clip in clips]
        if self.shard.first:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            stale = [i for i, (file, key) in enumerate(zip(files, keys, strict=True)) if not _holds(file, key)]
            computed = encode([clips[i] for i in stale]) if stale else []
            for i, features in zip(stale, computed, strict=True):
                save_atomically(files[i], {"features": features.cpu().contiguous()}, {"key": keys[i]})
        self.shard.wait()
        return [load_file(file)["features"].to(clip.device) for file, clip in zip(files, clips, strict=True)]

    def _key(self, clip: Backbone, known: dict[str, Any]) -> str:
        model = {"weights": self.weights[clip.name], "precision": clip.precision, "preprocess": clip.preprocess}
        return hashlib.sha256(json.dumps([known, model], default=str).encode()).hexdigest()


def weights_digest(clip: Backbone) -> str:
    """A digest of the model's weights, 64 characters."""
    digest = hashlib.sha256()
    for name, tensor in clip.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).numpy())
    return digest.hexdigest()


def _stamp(file: Path) -> tuple[str, int, int]:
    """Name, bytes and time of change of a file; zeros for one that has gone, which `encode_images` tells."""
    try:
        found = file.stat()
    except OSError:
        return file.name, 0, 0
    return file.name, found.st_size, found.st_mtime_ns


def _holds(file: Path, key: str) -> bool:
    """True for an undamaged file whose features were kept under this key."""
    if not file.is_file():
        return False
    try:
        with safe_open(file, framework="pt") as stored:
            return (stored.metadata() or {}).get("key") == key
    except SafetensorError:
        return False
