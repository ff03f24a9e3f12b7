"""Write the embedded world to disk in the formats of the real datasets.

    python -m demo.world DIR --styles clean blur --per-class 2

makes DIR/<style>/<class name>/<n>.png, an image folder a style.

    python -m demo.world DIR --styles clean blur --scenes 100

makes DIR/<style>/<n>.png and the list of them with five captions each, DIR/<style>.json, in the form of the Karpathy
test lists.

    python -m demo.world DIR --training-scenes 6000

makes DIR/train/<n>.png and DIR/train.json: what the embedded captioners are trained on.
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.world")

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from demo.art import NAMES, STUDENT_ARTISTS, draw
from demo.scenes import COLOURS, Scene, draw_scenes, draw_singles, held_out_scenes, sample_scene, scene_captions
from demo.styles import TEST_STYLES, augment_lightly
from rlcf.run.parser import Parser

VALIDATION_SEED, TEST_SEED = 1001, 2002
"""Hyper-parameters are chosen on pictures of the first, figures reported on pictures of the second."""


def classification_images(style: str, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of single objects. Returns (100 * per_class, 3, 64, 64) in [0, 1], and their class indices."""
    artist, change = TEST_STYLES[style]
    rng = np.random.default_rng([seed, list(TEST_STYLES).index(style)])
    labels = np.arange(len(NAMES)).repeat(per_class)
    colours = [str(colour) for colour in rng.choice(list(COLOURS), len(labels))]
    pictures = draw_singles(draw(artist)[labels], colours, rng)
    return change(pictures, rng).clamp(0.0, 1.0), torch.from_numpy(labels)


def scene_images(style: str, n: int, seed: int) -> tuple[Tensor, list[Scene]]:
    """Pictures of two things each, pairs that were never trained on. Returns (n, 3, 64, 64) in [0, 1], and what it is.

    Raises UserError for more than there are.
    """
    artist, change = TEST_STYLES[style]
    rng = np.random.default_rng([seed, list(TEST_STYLES).index(style), 1])
    scenes, drawings = held_out_scenes(n, rng), draw(artist)
    first, second = (drawings[[getattr(scene, part) for scene in scenes]] for part in ("first", "second"))
    return change(draw_scenes(first, second, scenes, rng), rng).clamp(0.0, 1.0), scenes


def write_classification(folder: Path, style: str, per_class: int, seed: int) -> None:
    """An image folder: folder/<class name>/<n>.png."""
    pictures, labels = classification_images(style, per_class, seed)
    files = [folder / NAMES[label] / f"{i % per_class}.png" for i, label in enumerate(labels.tolist())]
    _write_pictures(pictures, files)


def write_retrieval(folder: Path, style: str, n: int, seed: int) -> None:
    """folder/<style>/<n>.png, and folder/<style>.json: [{"image": "<style>/<n>.png", "caption": [five texts]}, ...]."""
    _write_scenes(folder, style, *scene_images(style, n, seed))


def write_caption_training(folder: Path, n: int, seed: int) -> None:
    """folder/train/<n>.png and folder/train.json, in the same form: pairs that may be trained on."""
    rng = np.random.default_rng([seed, len(TEST_STYLES), 1])
    scenes, drawings = [sample_scene(rng, held_out=False) for _ in range(n)], draw(STUDENT_ARTISTS[0])
    first, second = (drawings[[getattr(scene, part) for scene in scenes]] for part in ("first", "second"))
    pictures = augment_lightly(draw_scenes(first, second, scenes, rng), rng).clamp(0.0, 1.0)
    _write_scenes(folder, "train", pictures, scenes)


def _write_scenes(folder: Path, name: str, pictures: Tensor, scenes: list[Scene]) -> None:
    images = [f"{name}/{i}.png" for i in range(len(scenes))]
    _write_pictures(pictures, [folder / image for image in images])
    listed = [{"image": image, "caption": scene_captions(scene)} for image, scene in zip(images, scenes, strict=True)]
    (folder / f"{name}.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


def _write_pictures(pictures: Tensor, files: list[Path]) -> None:
    pixels = (pictures * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for picture, file in zip(pixels, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--styles", nargs="+", choices=list(TEST_STYLES), default=list(TEST_STYLES))
    parser.add_argument("--per-class", type=int, default=2, help="pictures of single things (default: 2 a class)")
    parser.add_argument("--scenes", type=int, help="pictures of two things, with captions, instead of single things")
    parser.add_argument("--training-scenes", type=int, help="the same of pairs that may be trained on, in one style")
    parser.add_argument("--seed", type=int, default=TEST_SEED)
    args = parser.parse_args()
    if args.training_scenes:
        write_caption_training(args.folder, args.training_scenes, args.seed)
        print(f"{args.folder / 'train'}.json: {args.training_scenes} scenes with five captions each")
        return
    for style in args.styles:
        if args.scenes:
            write_retrieval(args.folder, style, args.scenes, args.seed)
            print(f"{args.folder / style}.json: {args.scenes} scenes with five captions each")
        else:
            write_classification(args.folder / style, style, args.per_class, args.seed)
            print(f"{args.folder / style}: {len(NAMES) * args.per_class} images of {len(NAMES)} classes")
