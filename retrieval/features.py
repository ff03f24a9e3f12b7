"""Features that stay frozen: computed once a model, in batches, and kept in the run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from retrieval.datasets import Dataset
from rlcf.clip.backbone import Backbone
from rlcf.digests import digest_of, digest_of_tensors
from rlcf.inputs.sources import Source, StoredImage
from rlcf.run.files import file_name, writing
from rlcf.run.images import encode_images
from rlcf.run.shard import Shard
from rlcf.run.tensor_files import save_atomically


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of a dataset's images and texts by models as they were loaded.

    Each file of the folder holds one model's features of the images or of the texts, with a key of all that they depend
    on. Where the key has changed, or the file is damaged, they are computed anew. Of several processes the first
    computes and the others wait.
    view: the model whose evaluation view of an image all models see; skip_bad_images: features of an image that cannot
    be read are NaN; published: images are read as the published code reads its datasets.
    """

    folder: Path
    dataset: Dataset
    view: Backbone
    shard: Shard
    workers: int = 2
    skip_bad_images: bool = False
    published: bool = False

    def images(self, clips: Sequence[Backbone], wanted: Sequence[int]) -> list[Tensor]:
        """Features of the images `wanted`, (len(wanted), D) a model, unit length."""
        files = [self.dataset.files[index] for index in wanted]
        stamps = [_stamp(file) for file in files]
        known: dict[str, Any] = {
            "list": [self.dataset.ids[index] for index in wanted],
            "files": stamps,
            "view": self.view.preprocess,
        }
        known |= {"published": self.published}

        def encode(models: Sequence[Backbone]) -> list[Tensor]:
            desc = f"images of {self.dataset.name}: {', '.join(model.name for model in models)}"
            return encode_images(
                models,
                files,
                self.workers,
                desc=desc,
                view=self.view,
                skip_bad=self.skip_bad_images,
                published=self.published,
            )

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
        names = [f"{self.dataset.name}-{kind}-{clip.name}" for clip in clips]
        files = [self.folder / f"{file_name(name)}.safetensors" for name in names]
        keys = [self._key(clip, known) for clip in clips]
        if self.shard.first:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            stale = [i for i, (file, key) in enumerate(zip(files, keys, strict=True)) if not _holds(file, key)]
            computed = encode([clips[i] for i in stale]) if stale else []
            for i, features in zip(stale, computed, strict=True):
                held = {"features": features.cpu().contiguous()}
                save_atomically(files[i], held, {"key": keys[i], "digest": digest_of_tensors(held)})
        self.shard.wait()
        return [load_file(file)["features"].to(clip.device) for file, clip in zip(files, clips, strict=True)]

    def _key(self, clip: Backbone, known: dict[str, Any]) -> str:
        return digest_of([known, {"weights": clip.digest, "precision": clip.precision}])


def _stamp(file: Source) -> tuple[str, int, int]:
    """Name, bytes and time of change of a file; zeros for one that has gone, which `encode_images` tells.

    Of a row the name of its dataset, its number, and a zero.
    """
    if isinstance(file, StoredImage):
        return file.rows.name, file.row, 0
    try:
        found = file.stat()
    except OSError:
        return file.name, 0, 0
    return file.name, found.st_size, found.st_mtime_ns


def _holds(file: Path, key: str) -> bool:
    """True for an undamaged file whose features were kept under this key."""
    try:
        with safe_open(file, framework="pt") as stored:
            told = stored.metadata() or {}
            held = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        return told.get("key") == key and told.get("digest") == digest_of_tensors(held)
    except (SafetensorError, OSError):
        return False
