"""Augmentations of a cropped and resized view: BYOL's colour augmentation, and AugMix."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import functional as TF

Generator = np.random.Generator


def to_tensor(image: Image.Image) -> Tensor:
    """The pixels of an RGB image, (3, h, w) uint8, with channels last in memory: torch resizes this layout fastest."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_image(pixels: Tensor) -> Image.Image:
    """The RGB image of pixels, (3, h, w) uint8."""
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def hard(view: Image.Image, rng: Generator) -> Image.Image:
    """BYOL's colour augmentation (Grill et al., NeurIPS 2020, appendix B), with the strengths of the published runs.

    Colour jitter with probability 0.5, grey with 0.2, blur with 0.1.
    """
    if rng.random() < 0.5:
        factors = [rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4), rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.1)]
        jitters = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
        for i in rng.permutation(len(jitters)):
            view = jitters[i](view, factors[i])
    if rng.random() < 0.2:
        view = TF.rgb_to_grayscale(view, num_output_channels=3)
    if rng.random() < 0.1:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))
    return view


def augmix(view: Image.Image, rng: Generator) -> Tensor:
    """AugMix (Hendrycks et al., ICLR 2020, algorithm 1), severity 1, three chains of one to three operations.

    Returns (3, H, W) float in [0, 1].
    """
    weights, share = rng.dirichlet([1.0, 1.0, 1.0]), float(rng.beta(1.0, 1.0))
    chains = [view] * 3
    for i in range(3):
        for _ in range(rng.integers(1, 4)):
            chains[i] = _AUGMIX_OPERATIONS[rng.integers(len(_AUGMIX_OPERATIONS))](chains[i], rng)
    images = torch.stack([to_tensor(image) for image in (view, *chains)]).float() / 255.0
    mix = torch.tensor([share, *(1.0 - share) * weights], dtype=torch.float32)
    return torch.tensordot(mix, images, dims=1)


def _level(rng: Generator, most: float) -> float:
    """Draws the strength of an operation at severity 1, where `most` is its strength at severity 10."""
    return rng.uniform(0.1, 1.0) * most / 10.0


def _either_way(rng: Generator, value: float) -> float:
    """The value or, with probability 0.5, its negative."""
    return -value if rng.random() < 0.5 else value


def _shear(image: Image.Image, x: float = 0.0, y: float = 0.0) -> Image.Image:
    """Shears an image. x: columns to move by for each row; y: rows for each column. New pixels are black."""
    return image.transform(image.size, Image.Transform.AFFINE, (1, x, 0, y, 1, 0), resample=Image.Resampling.BILINEAR)


def _translate(image: Image.Image, x: int = 0, y: int = 0) -> Image.Image:
    """Moves an image by whole pixels. New pixels are black.

    A crop that reaches beyond the image does this in a tenth of the time of an affine transform.
    """
    return image.crop((x, y, x + image.width, y + image.height))


_AUGMIX_OPERATIONS: list[Callable[[Image.Image, Generator], Image.Image]] = [
    lambda im, rng: ImageOps.autocontrast(im),
    lambda im, rng: ImageOps.equalize(im),
    lambda im, rng: ImageOps.posterize(im, 4 - int(_level(rng, 4))),
    lambda im, rng: im.rotate(_either_way(rng, int(_level(rng, 30))), resample=Image.Resampling.BILINEAR),
    lambda im, rng: ImageOps.solarize(im, 256 - int(_level(rng, 256))),
    lambda im, rng: _shear(im, x=_either_way(rng, _level(rng, 0.3))),
    lambda im, rng: _shear(im, y=_either_way(rng, _level(rng, 0.3))),
    lambda im, rng: _translate(im, x=int(_either_way(rng, int(_level(rng, im.width / 3))))),
    lambda im, rng: _translate(im, y=int(_either_way(rng, int(_level(rng, im.height / 3))))),
]
