"""An extraction: CLIP features of captioned images and of their captions."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from caption.training.config import FeatureConfig
from caption.training.features import CAPTIONS_FILE, Features, read_features, write_features
from caption.training.rows import encode_all, without_unread
from rlcf.clip.backbone import Backbone
from rlcf.clip.loading import load_clip
from rlcf.digests import digest_of
from rlcf.errors import UserError
from rlcf.inputs.lists import CaptionedImage
from rlcf.inputs.places import as_it_lies
from rlcf.inputs.sources import Source
from rlcf.run.device import resolve_device, resolve_precision
from rlcf.run.folder import open_run_folder
from rlcf.run.identity import keep_identity, read_identity
from rlcf.run.images import encode_images
from rlcf.run.memory import out_of_memory_told


def run(config: FeatureConfig, samples: list[CaptionedImage]) -> None:
    """Extract the features of captioned images that the settings describe."""
    device = resolve_device(config)
    precision = resolve_precision(config, device)
    resolved = replace(config, device=device.type, precision=precision)
    with open_run_folder(resolved, lambda folder: [folder] if is_begun(folder) else []) as folder:
        clip = load_clip(config.student, device, precision, config.clip_root)
        listed = [[sample.image, sample.captions] for sample in samples]
        contents = {"captions": digest_of(listed), "weights of the student": clip.digest}
        keep_identity(folder, resolved, contents, is_begun(folder))
        if (folder / CAPTIONS_FILE).exists():
            read_features(str(folder))
            print(f"{folder} is complete")
        else:
            extract(config, samples, clip, folder)


def is_begun(folder: Path) -> bool:
    """True for a folder that holds features, or a part of them."""
    return (folder / CAPTIONS_FILE).exists() or any(file.stat().st_size for file in folder.glob("*.f32"))


def extract(config: FeatureConfig, samples: list[CaptionedImage], clip: Backbone, folder: Path) -> None:
    """Write the features of the images and their captions into a folder, and print how many they are."""
    root, width, key = Path(config.data), clip.encode_text(["a"]).shape[1], read_identity(folder).key
    image = None
    if config.images:

        def encode(files: Sequence[Source]) -> Tensor:
            with out_of_memory_told(config):
                (rows,) = encode_images(
                    [clip],
                    files,
                    config.workers,
                    config.batch_size,
                    None,
                    skip_bad=config.skip_bad_images,
                    published=config.image_reading == "published",
                )
            return rows

        files = [root / as_it_lies(root, sample.image) for sample in samples]
        samples, image = without_unread(samples, encode_all(folder, "image", key, files, width, config.chunk, encode))
    captions = [caption for sample in samples for caption in sample.captions]
    if not captions:
        raise UserError(f"{root / config.captions} has no captions to learn from")
    text = encode_all(folder, "caption", key, captions, width, config.chunk, clip.encode_text)
    image_index = [i for i, sample in enumerate(samples) for _ in sample.captions]
    write_features(folder, Features(captions, image_index, list(range(len(captions))), image, text, config.student))
    for part in [*folder.glob("*.f32"), *folder.glob("*.sums")]:
        part.unlink()
    count = "no images" if image is None else f"{len(image)} images"
    print(f"{folder}: {len(captions)} captions, {count}, {width} wide")
