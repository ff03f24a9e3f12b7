"""Changes of the pictures: augmentations for training, and other styles for testing. No style is in both."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import functional as TF

Generator = np.random.Generator
Style = Callable[[Tensor, Generator], Tensor]
"""(N, 3, H, W) in [0, 1] -> the same shape."""


# ---- training ----


def _uniform(rng: Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape)).float()


def brightness(images: Tensor, rng: Generator) -> Tensor:
    return images * _uniform(rng, 0.85, 1.15, len(images), 1, 1, 1)


def contrast(images: Tensor, rng: Generator) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * _uniform(rng, 0.4, 1.5, len(images), 1, 1, 1)


def recolour(images: Tensor, rng: Generator) -> Tensor:
    """Channels mixed by random weights that sum to one."""
    mix = torch.from_numpy(rng.dirichlet([0.5, 0.5, 0.5], (len(images), 3))).float()
    return torch.einsum("nij,njhw->nihw", mix, images)


def grey(images: Tensor, rng: Generator) -> Tensor:
    return images.mean(dim=1, keepdim=True).expand_as(images)


def outline(images: Tensor, rng: Generator) -> Tensor:
    """Dark lines where the picture changes."""
    x = (images - images.roll(1, dims=-1)).abs().amax(dim=1, keepdim=True)
    y = (images - images.roll(1, dims=-2)).abs().amax(dim=1, keepdim=True)
    return (1.0 - _uniform(rng, 1.5, 4.0, len(images), 1, 1, 1) * torch.maximum(x, y)).expand_as(images)


def elastic(images: Tensor, rng: Generator) -> Tensor:
    """A smooth random displacement of up to a few pixels."""
    n, _, h, w = images.shape
    coarse = _uniform(rng, -0.12, 0.12, n, 2, 5, 5)
    shift = F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    identity = torch.eye(2, 3).expand(n, 2, 3)
    grid = F.affine_grid(identity, [n, 3, h, w], align_corners=False)
    return F.grid_sample(images, grid + shift, padding_mode="border", align_corners=False)


def aspect(images: Tensor, rng: Generator) -> Tensor:
    """Another ratio of the sides, sheared a little, from 70 % to 120 % of the size."""
    n, c, h, w = images.shape
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = _uniform(rng, 0.8, 1.4, n), _uniform(rng, 0.8, 1.4, n)
    theta[:, 0, 1] = _uniform(rng, -0.2, 0.2, n)
    grid = F.affine_grid(theta, [n, c, h, w], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def noise(images: Tensor, rng: Generator) -> Tensor:
    strength = _uniform(rng, 0.0, 0.2, len(images), 1, 1, 1)
    return images + strength * torch.from_numpy(rng.standard_normal(images.shape)).float()


def cutout(images: Tensor, rng: Generator) -> Tensor:
    """A grey rectangle over a part of the picture."""
    images = images.clone()
    for image in images:
        h, w = (int(v) for v in rng.integers(8, 26, 2))
        y, x = int(rng.integers(0, image.shape[1] - h + 1)), int(rng.integers(0, image.shape[2] - w + 1))
        image[:, y : y + h, x : x + w] = float(rng.uniform(0, 1))
    return images


def random_crops(images: Tensor, rng: Generator) -> Tensor:
    """Six in ten pictures become a resized crop of 8% to 100% of their area, like the views of an image in testing."""
    n = len(images)
    area, ratio = rng.uniform(0.08, 1.0, n), np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), n))
    sides = np.minimum(np.sqrt([area * ratio, area / ratio]), 1.0)  # of the picture's: width, height
    sides[:, rng.random(n) >= 0.6] = 1.0
    centre = rng.uniform(-1.0, 1.0, (2, n)) * (1.0 - sides)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.from_numpy(sides).float()
    theta[:, :, 2] = torch.from_numpy(centre.T).float()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


AUGMENTATIONS: tuple[Style, ...] = (brightness, contrast, recolour, grey, outline, elastic, aspect, noise, cutout)


def augment_lightly(images: Tensor, rng: Generator) -> Tensor:
    """Four in ten pictures get some of the augmentations, the rest are as they are."""
    return _augment(images, rng, share=0.4, rare={outline: 0.05, grey: 0.1})


def augment_heavily(images: Tensor, rng: Generator) -> Tensor:
    """Seven in ten pictures get some of the augmentations, the rest are as they are."""
    return _augment(images, rng, share=0.7, rare={outline: 0.12, grey: 0.15})


def _augment(images: Tensor, rng: Generator, share: float, rare: dict[Style, float]) -> Tensor:
    chances = np.array([[rare.get(style, 0.35)] for style in AUGMENTATIONS])
    return _apply(images, AUGMENTATIONS, chances * (rng.random(len(images)) < share), rng)


def _apply(images: Tensor, styles: tuple[Style, ...], chances: np.ndarray, rng: Generator) -> Tensor:
    """chances: (styles, N)."""
    images = images.clone()
    for style, chance in zip(styles, chances, strict=True):
        chosen = torch.from_numpy(rng.random(len(images)) < chance)
        if bool(chosen.any()):
            images[chosen] = style(images[chosen], rng).clamp(0.0, 1.0)
    return images


# ---- testing ----


def clean(images: Tensor, rng: Generator) -> Tensor:
    return images


def blur(images: Tensor, rng: Generator) -> Tensor:
    """Gaussian, sigma 1.6 pixels."""
    return TF.gaussian_blur(images, [13, 13], [1.6, 1.6])


def pixelate(images: Tensor, rng: Generator) -> Tensor:
    """20 x 20 blocks."""
    small = F.interpolate(images, size=(20, 20), mode="area")
    return F.interpolate(small, size=images.shape[-2:], mode="nearest")


def halftone(images: Tensor, rng: Generator) -> Tensor:
    """A screen over the picture at 30 %: each channel as dots on a grid of 4 pixels, the darker the larger."""
    cell = 4
    ink = 1.0 - F.avg_pool2d(images, cell)
    position = torch.arange(images.shape[-1]) % cell - (cell - 1) / 2
    distance = (position[None, :] ** 2 + position[:, None] ** 2).sqrt()
    radius = F.interpolate(ink.clamp(min=0).sqrt(), scale_factor=cell, mode="nearest") * 2.3
    dots = 1.0 - (radius - distance + 0.5).clamp(0.0, 1.0)
    return 0.7 * images + 0.3 * dots


def fog(images: Tensor, rng: Generator) -> Tensor:
    """Light grey that covers about half, in smooth swathes."""
    n, _, h, w = images.shape
    coarse = torch.from_numpy(rng.uniform(0.2, 0.8, (n, 1, 4, 4))).float()
    cover = F.interpolate(coarse, size=(h, w), mode="bicubic", align_corners=True).clamp(0.0, 0.95)
    return images * (1.0 - cover) + 0.85 * cover


def clutter(images: Tensor, rng: Generator) -> Tensor:
    """Fourteen small coloured discs strewn over the picture."""
    images = images.clone()
    y, x = torch.meshgrid(torch.arange(images.shape[-2]), torch.arange(images.shape[-1]), indexing="ij")
    for image in images:
        for _ in range(14):
            cy, cx, radius = rng.uniform(0, 64), rng.uniform(0, 64), rng.uniform(2, 5)
            disc = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
            image[:, disc] = torch.from_numpy(rng.uniform(0, 1, (3, 1))).float()
    return images


def negative(images: Tensor, rng: Generator) -> Tensor:
    return 1.0 - images


TEST_STYLES: dict[str, tuple[str, Style]] = {
    "clean": ("openmoji", clean),
    "blur": ("openmoji", blur),
    "pixelate": ("openmoji", pixelate),
    "halftone": ("openmoji", halftone),
    "fog": ("openmoji", fog),
    "clutter": ("openmoji", clutter),
    "negative": ("openmoji", negative),
    "noto": ("noto", clean),
}
"""Style -> (artist, what happens to the drawing). "clean" is what the student was trained on; "noto" another artist."""
