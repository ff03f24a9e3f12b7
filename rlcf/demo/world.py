"""Write the embedded world to disk in the formats of the real datasets.

    python -m rlcf.demo.world DIR --styles clean blur --per-class 2

makes DIR/<style>/<class name>/<n>.png, an image folder a style.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rlcf.demo.art import NAMES, draw
from rlcf.demo.scenes import COLOURS, draw_singles
from rlcf.demo.styles import TEST_STYLES

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


def write_classification(folder: Path, style: str, per_class: int, seed: int) -> None:
    """An image folder: folder/<class name>/<n>.png."""
    pictures, labels = classification_images(style, per_class, seed)
    pixels = (pictures * 255.0).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for i, (picture, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):
        file = folder / NAMES[label] / f"{i % per_class}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--styles", nargs="+", choices=list(TEST_STYLES), default=list(TEST_STYLES))
    parser.add_argument("--per-class", type=int, default=2)
    parser.add_argument("--seed", type=int, default=TEST_SEED)
    args = parser.parse_args()
    for style in args.styles:
        write_classification(args.folder / style, style, args.per_class, args.seed)
        print(f"{args.folder / style}: {len(NAMES) * args.per_class} images of {len(NAMES)} classes")


if __name__ == "__main__":
    main()
