"""Features that stay frozen: computed once a model, in batches, and kept in the run folder."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from retrieval.datasets import Dataset
from rlcf.clip.backbone import Backbone
from rlcf.run.files import save_atomically
from rlcf.run.images import encode_images
from rlcf.run.records import Shard


@dataclass(frozen=True)
class FrozenFeatures:
    """A dataset as CLIPs see it that nothing has tuned yet.

    Each file of the folder holds what one model makes of the images or of the texts, with a key of all that this
    depends on; where the key has become another, or the file is damaged, it is computed anew. Of several processes the
    first computes and the others wait.
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
        stamps = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
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
        """What the files hold, after those that are missing or stale are written."""
        names = [f"{self.dataset.name}-{kind}-{clip.name}".strip("/") for clip in clips]
        files = [self.folder / (re.sub(r"[^\w.-]+", "-", name) + ".safetensors") for name in names]
        keys = [self._key(clip, known) for clip in clips]
        if self.shard.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            stale = [i for i, (file, key) in enumerate(zip(files, keys, strict=True)) if _read(file, key) is None]
            computed = encode([clips[i] for i in stale]) if stale else []
            for i, features in zip(stale, computed, strict=True):
                save_atomically(files[i], {"features": features.cpu().contiguous()}, {"key": keys[i]})
        self.shard.wait()
        return [_read(file, key).to(clip.device) for file, key, clip in zip(files, keys, clips, strict=True)]

    def _key(self, clip: Backbone, known: dict[str, Any]) -> str:
        model = {"weights": self.weights[clip.name], "precision": clip.precision, "preprocess": clip.preprocess}
        return hashlib.sha256(json.dumps([known, model], default=str).encode()).hexdigest()


def weights_digest(clip: Backbone) -> str:
    """What the model's weights are, in 64 characters."""
    digest = hashlib.sha256()
    for name, tensor in clip.model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).numpy())
    return digest.hexdigest()


def _read(file: Path, key: str) -> Tensor | None:
    """The features that were kept under this key."""
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            return stored.get_tensor("features") if (stored.metadata() or {}).get("key") == key else None
    except SafetensorError:
        return None
