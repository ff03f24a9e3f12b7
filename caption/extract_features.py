"""CLIP features of a list of captioned images and of the captions, which caption/train.py learns from."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from caption.training.features import CAPTIONS_FILE, Features, write_features
from rlcf.clip.backbone import load_clip
from rlcf.errors import UserError, run_main
from rlcf.run.config import Settings, option, parse_config, resolve_device, resolve_precision
from rlcf.run.data import CaptionedImage, read_captions
from rlcf.run.images import encode_images
from rlcf.run.records import logger, open_run_folder

EPILOG = """examples:
  python caption/extract_features.py --data ROOT/dataset/coco2014 --captions coco_karpathy_train.json --output FEATURES
  python caption/extract_features.py --data LISTS --captions captions.json --no-images --output FEATURES

The list holds [{"image": path, "caption": text or texts}, ...]; its paths start from --data. The output folder gets
features.safetensors and captions.json. The same command again goes on with an extraction that was stopped.
"""


@dataclass
class FeatureConfig(Settings):
    """Settings of an extraction."""

    data: str = option("", "folder that holds the list, and the images that its paths start from")
    output: str = option("output/features", "folder of the features: config.yaml, log.txt, the features")
    captions: str = option("", "list of captioned images, a file below --data")
    images: bool = option(True, "also the images' features; CapDec needs none")
    student: str = option("ViT-B/16", "the CLIP: OpenAI or open_clip name, hf-hub:..., path", group="models")
    clip_root: str | None = option(None, "folder with OpenAI's files (ViT-B-16.pt, ...)", group="models")
    batch_size: int = option(64, "images a pass", at_least=1)
    chunk: int = option(2048, "images or captions between two writes, all that a stop can lose", at_least=1)
    workers: int = option(2, "processes that read images; 0: none but this one", at_least=0)
    skip_bad_images: bool = option(False, "leave out an image that cannot be read, with its captions")

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        if not self.data or not self.captions:
            raise UserError("no captions; give --data a folder and --captions a list below it")


class Rows:
    """A matrix on disk that grows by whole rows."""

    def __init__(self, file: Path, width: int) -> None:
        self.file, self.width = file, width
        file.touch()
        self.done = file.stat().st_size // (4 * width)
        with file.open("r+b") as stream:
            stream.truncate(self.done * 4 * width)

    def append(self, rows: Tensor) -> None:
        """rows: (N, width)."""
        with self.file.open("ab") as stream:
            stream.write(rows.cpu().numpy().astype("<f4").tobytes())

    def read(self) -> Tensor:
        """(N, width)."""
        return torch.from_numpy(np.fromfile(self.file, "<f4").reshape(-1, self.width))


def encode_all(
    folder: Path, kind: str, items: Sequence[Any], width: int, chunk: int, encode: Callable[[Sequence[Any]], Tensor]
) -> Tensor:
    """Features of all items, (len(items), width), chunk by chunk; a stopped extraction goes on with the next one."""
    rows = Rows(folder / f"{kind}.f32", width)
    with tqdm(desc=kind, initial=rows.done, total=len(items), unit=kind) as progress:
        for start in range(rows.done, len(items), chunk):
            part = items[start : start + chunk]
            rows.append(encode(part))
            progress.update(len(part))
    return rows.read()


def without_unread(samples: list[CaptionedImage], image: Tensor) -> tuple[list[CaptionedImage], Tensor]:
    """The images that could be read. image: (I, D), NaN for one that could not."""
    read = image.isfinite().all(dim=1)
    for sample, fine in zip(samples, read.tolist(), strict=True):
        if not fine:
            logger.info("left out: %s", sample.image)
    return [sample for sample, fine in zip(samples, read.tolist(), strict=True) if fine], image[read]


def main(argv: list[str] | None = None) -> None:
    config = parse_config(FeatureConfig, argv, __doc__ or "", EPILOG)
    device = resolve_device(config)
    precision = resolve_precision(config, device)
    root = Path(config.data)
    samples = read_captions(root / config.captions)
    folder = open_run_folder(replace(config, device=device.type, precision=precision), begun="*.f32")
    if (folder / CAPTIONS_FILE).exists():
        print(f"{folder} is complete")
        return
    clip = load_clip(config.student, device, precision, config.clip_root)
    width = clip.encode_text(["a"]).shape[1]
    image = None
    if config.images:

        def encode(files: Sequence[Path]) -> Tensor:
            (rows,) = encode_images(
                [clip], files, config.workers, config.batch_size, None, None, config.skip_bad_images
            )
            return rows

        files = [root / sample.image for sample in samples]
        samples, image = without_unread(samples, encode_all(folder, "image", files, width, config.chunk, encode))
    captions = [caption for sample in samples for caption in sample.captions]
    if not captions:
        raise UserError(f"{root / config.captions} has no captions to learn from")
    text = encode_all(folder, "caption", captions, width, config.chunk, clip.encode_text)
    image_index = [i for i, sample in enumerate(samples) for _ in sample.captions]
    write_features(folder, Features(captions, image_index, list(range(len(captions))), image, text, config.student))
    for part in folder.glob("*.f32"):
        part.unlink()
    count = "no images" if image is None else f"{len(image)} images"
    print(f"{folder}: {len(captions)} captions, {count}, {width} wide")


if __name__ == "__main__":
    run_main(main)
