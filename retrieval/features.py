"""Features that stay frozen: computed once a model by all processes, in batches, and kept in the run folder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from retrieval.datasets import Dataset
from rlcf.clip.backbone import TEXT_BATCH, Backbone
from rlcf.digests import digest_of
from rlcf.inputs.sources import Source, StoredImage
from rlcf.progress import progress_bar
from rlcf.run.dealing import Dealt
from rlcf.run.files import file_name, writing
from rlcf.run.images import encode_batches
from rlcf.run.shard import Shard
from rlcf.run.tensor_files import is_whole, writing_rows

IMAGE_BATCH = 64
"""Images that are encoded together, as are `TEXT_BATCH` texts, whatever the number of processes: the features are then
the same bit for bit."""

Encode = Callable[[Sequence[Backbone], Dealt], Iterator[tuple[list[int], list[Tensor]]]]
"""From models and the rows that this process gets to batches: their rows, and (n, D) features a model."""


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of a dataset's images and texts by models as they were loaded.

    Each file of the folder holds one model's features of the images or of the texts, with a key of all that they depend
    on. Where the key has changed, or the file is damaged, they are computed anew. Several processes share the batches;
    the first writes the file, which all can read. On a CPU the features stay in their file, mapped into memory: what
    is read of them can be given back.
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
        known: dict[str, Any] = {
            "list": [self.dataset.ids[index] for index in wanted],
            "files": [_stamp(file) for file in files],
            "view": self.view.preprocess,
            "published": self.published,
        }

        def encode(models: Sequence[Backbone], rows: Dealt) -> Iterator[tuple[list[int], list[Tensor]]]:
            return encode_batches(
                models, files, rows, self.workers, IMAGE_BATCH, self.view, self.skip_bad_images, self.published
            )

        return self._kept("image", len(files), IMAGE_BATCH, clips, known, encode)

    def texts(self, clips: Sequence[Backbone], wanted: Sequence[int]) -> list[Tensor]:
        """Features of the texts `wanted`, (len(wanted), D) a model, unit length."""
        texts = [self.dataset.texts[index] for index in wanted]

        def encode(models: Sequence[Backbone], rows: Dealt) -> Iterator[tuple[list[int], list[Tensor]]]:
            for batch in rows.portions():
                yield batch, [model.encode_text([texts[row] for row in batch]) for model in models]

        return self._kept("text", len(texts), TEXT_BATCH, clips, {"list": texts}, encode)

    def _kept(
        self, kind: str, count: int, batch: int, clips: Sequence[Backbone], known: dict[str, Any], encode: Encode
    ) -> list[Tensor]:
        """Features from the files, after those that are missing or stale are written. kind: "image" or "text"."""
        names = [f"{self.dataset.name}-{kind}s-{clip.name}" for clip in clips]
        files = [self.folder / f"{file_name(name)}.safetensors" for name in names]
        stale = self.shard.from_first(lambda: self._stale(files, count, clips, known))
        if stale:
            self._write(kind, count, batch, [clips[i] for i in stale], encode, {files[i]: stale[i] for i in stale})
        self.shard.wait()
        return [load_file(file)["features"].to(clip.device) for file, clip in zip(files, clips, strict=True)]

    def _stale(
        self, files: Sequence[Path], count: int, clips: Sequence[Backbone], known: dict[str, Any]
    ) -> dict[int, str]:
        """The key of each file that is missing, damaged or of something else, by its number.

        A file of two models, as of a student that rewards as well, is told once.
        """
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        of_all = digest_of(known)
        keys = [digest_of([of_all, {"weights": clip.digest, "precision": clip.precision}]) for clip in clips]
        whole = [
            is_whole(file, "features", (count, clip.dimension), {"key": key})
            for file, key, clip in zip(files, keys, clips, strict=True)
        ]
        return {i: key for i, key in enumerate(keys) if not whole[i] and files[i] not in files[:i]}

    def _write(
        self, kind: str, count: int, batch: int, models: Sequence[Backbone], encode: Encode, keys: dict[Path, str]
    ) -> None:
        """Encode this process's batches; the first process writes everybody's. keys: of each model's file."""
        rows, mine = Dealt(range(count), batch, self.shard.numbers()), list[tuple[list[int], list[Tensor]]]()
        desc = f"{kind}s of {self.dataset.name}: {', '.join(model.name for model in models)}"
        with (
            ExitStack() as stack,
            progress_bar(desc=desc, total=count, unit=kind, disable=not self.shard.first) as progress,
        ):
            write: list[Callable[[int, Tensor], None]] = []

            def put(places: list[int], features: Sequence[Tensor]) -> None:
                if not write:
                    for (file, key), matrix in zip(keys.items(), features, strict=True):
                        shape = (count, matrix.shape[1])
                        write.append(stack.enter_context(writing_rows(file, "features", shape, {"key": key})))
                for into, matrix in zip(write, features, strict=True):
                    into(places[0], matrix)

            done = 0
            for places, features in encode(models, rows):
                if self.shard.first:
                    put(places, features)
                else:
                    mine.append((places, [matrix.cpu() for matrix in features]))
                done += len(places)
                progress.update(done + rows.others - progress.n)
            for places, features in self.shard.to_first(mine):
                put(places, features)


def _stamp(file: Source) -> tuple[str, int, int]:
    """Name, bytes and time of change of a file; zeros for one that has gone, which `encode_batches` tells.

    Of a row the name of its dataset, its number, and a zero.
    """
    if isinstance(file, StoredImage):
        return file.rows.name, file.row, 0
    try:
        found = file.stat()
    except OSError:
        return file.name, 0, 0
    return file.name, found.st_size, found.st_mtime_ns
