"""Augmented views of one image: the plain centre crop first, then random ones that depend on (seed, index) alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision.transforms import functional as TF

Generator = np.random.Generator

AUGMENTATIONS = ("crop", "augmix", "hard")


@dataclass(frozen=True)
class Views:
    """Makes the views of one image, as TPT does (NeurIPS 2022, section 4.1).

    centre: the model's own evaluation transform, from a PIL image to (3, H, W) in [0, 1].
    size: (H, W) of every view, pixels. count: number of views, the centre crop included.
    augment: "crop" - resized crop and flip; "augmix" - the same, then AugMix; "hard" - BYOL's colour augmentation.
    """

    centre: Callable[[Image.Image], Tensor]
    size: tuple[int, int]
    count: int = 64
    augment: str = "crop"
    seed: int = 0

    def __call__(self, image: Image.Image, index: int) -> Tensor:
        """Views of the image that is sample `index`: (count, 3, H, W), uint8 in 0..255, or float in [0, 1] (AugMix)."""
        rng = np.random.default_rng([self.seed, index])
        centre = (self.centre(image) * 255.0).round().to(torch.uint8)
        if self.augment == "augmix":
            mixed = [_augmix(_crop_and_flip(image, self.size, rng), rng) for _ in range(self.count - 1)]
            return torch.stack([centre.float() / 255.0, *mixed])
        make = _hard if self.augment == "hard" else _crop_and_flip
        return torch.stack([centre, *(_to_tensor(make(image, self.size, rng)) for _ in range(self.count - 1))])


def sample_crop(
    width: int, height: int, scale: tuple[float, float], rng: Generator, ratio: tuple[float, float] = (3 / 4, 4 / 3)
) -> tuple[int, int, int, int]:
    """A random crop box (left, top, right, bottom), pixels, distributed as torchvision's RandomResizedCrop."""
    for _ in range(10):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _crop_and_flip(
    image: Image.Image, size: tuple[int, int], rng: Generator, scale: tuple[float, float] = (0.08, 1.0)
) -> Image.Image:
    crop = image.crop(sample_crop(*image.size, scale, rng)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return ImageOps.mirror(crop) if rng.random() < 0.5 else crop


def _hard(image: Image.Image, size: tuple[int, int], rng: Generator) -> Image.Image:
    """BYOL's recipe (Grill et al., NeurIPS 2020, appendix B) with the strengths of the published runs."""
    view = _crop_and_flip(image, size, rng, scale=(0.2, 1.0))
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


def _augmix(view: Image.Image, rng: Generator) -> Tensor:
    """AugMix (Hendrycks et al., ICLR 2020, algorithm 1), severity 1, three chains of one to three operations.

    Returns (3, H, W) float in [0, 1].
    """
    plain = _to_tensor(view).float() / 255.0
    weights, share = rng.dirichlet([1.0, 1.0, 1.0]), float(rng.beta(1.0, 1.0))
    mixed = torch.zeros_like(plain)
    for weight in weights:
        chain = view
        for _ in range(rng.integers(1, 4)):
            chain = _AUGMIX_OPERATIONS[rng.integers(len(_AUGMIX_OPERATIONS))](chain, rng)
        mixed += float(weight) * (_to_tensor(chain).float() / 255.0)
    return share * plain + (1.0 - share) * mixed


def _level(rng: Generator, most: float) -> float:
    """A strength at severity 1 on AugMix's scale of ten."""
    return rng.uniform(0.1, 1.0) * most / 10.0


def _either_way(rng: Generator, value: float) -> float:
    return -value if rng.random() < 0.5 else value


def _affine(image: Image.Image, matrix: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


_AUGMIX_OPERATIONS: list[Callable[[Image.Image, Generator], Image.Image]] = [
    lambda im, rng: ImageOps.autocontrast(im),
    lambda im, rng: ImageOps.equalize(im),
    lambda im, rng: ImageOps.posterize(im, 4 - int(_level(rng, 4))),
    lambda im, rng: im.rotate(_either_way(rng, int(_level(rng, 30))), resample=Image.Resampling.BILINEAR),
    lambda im, rng: ImageOps.solarize(im, 256 - int(_level(rng, 256))),
    lambda im, rng: _affine(im, (1, _either_way(rng, _level(rng, 0.3)), 0, 0, 1, 0)),
    lambda im, rng: _affine(im, (1, 0, 0, _either_way(rng, _level(rng, 0.3)), 1, 0)),
    lambda im, rng: _affine(im, (1, 0, _either_way(rng, int(_level(rng, im.width / 3))), 0, 1, 0)),
    lambda im, rng: _affine(im, (1, 0, 0, 0, 1, _either_way(rng, int(_level(rng, im.height / 3))))),
]


def _to_tensor(image: Image.Image) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
