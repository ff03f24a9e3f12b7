"""CLIP features of a list of captioned images and of the captions, which caption/train.py learns from."""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("caption.extract_features")

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from caption.training.config import FeatureConfig
from caption.training.features import CAPTIONS_FILE, Features, write_features
from caption.training.rows import encode_all, without_unread
from rlcf.clip.backbone import load_clip
from rlcf.errors import UserError
from rlcf.run.config import parse_config, resolve_device, resolve_precision
from rlcf.run.data import read_captions
from rlcf.run.images import encode_images
from rlcf.run.memory import out_of_memory_told
from rlcf.run.records import open_run_folder

EPILOG = """examples:
  python caption/extract_features.py --data ROOT/dataset/coco2014 --captions coco_karpathy_train.json --output FEATURES
  python caption/extract_features.py --data LISTS --captions captions.json --no-images --output FEATURES

The list holds [{"image": path, "caption": text or texts}, ...]; its paths start from --data. The output folder gets
features.safetensors and captions.json. The same command again goes on with an extraction that was stopped.
"""


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
            with out_of_memory_told(config):
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
