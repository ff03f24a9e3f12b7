"""Augmented views of one image: the centre crop, then random crops that depend on the seed and the image's index."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from rlcf.adapt.augment import augmix, hard, to_image, to_tensor
from rlcf.errors import UserError

Box = tuple[int, int, int, int]
"""(left, top, right, bottom) of a crop, pixels."""

LEAST_AREA = {"crop": 0.08, "augmix": 0.08, "hard": 0.2}
"""Augmentation -> the smallest share of an image's area that its crops cover."""


@dataclass(frozen=True, eq=False)
class PlannedViews:
    """The crops of V views, drawn in a worker process, to be cut and resized later on another device.

    centre: (3, H, W) uint8, the first view. image: (3, h, w) uint8, from which the others are cut.
    boxes: (V - 1, 4) int64, each a `Box`. flips: (V - 1,) bool, True for mirrored views.
    size: (H, W) of the views, pixels.
    """

    centre: Tensor
    image: Tensor
    boxes: Tensor
    flips: Tensor
    size: tuple[int, int]

    def render(self, device: torch.device | str = "cpu") -> Tensor:
        """Cuts and resizes the views on `device`. Returns (V, 3, H, W) uint8."""
        dtype = resizing_dtype(torch.device(device))
        image = self.image.to(device, non_blocking=True).to(dtype)
        views = torch.empty(1 + len(self.boxes), 3, *self.size, dtype=dtype, device=device)
        views[0] = self.centre
        for view, box, flip in zip(views[1:], self.boxes.tolist(), self.flips.tolist(), strict=True):
            view.copy_(crop_and_resize(image, box, flip, self.size))
        return views.round().to(torch.uint8) if views.is_floating_point() else views

    def pin_memory(self) -> "PlannedViews":
        """A copy with its pixels in page-locked memory. DataLoader calls it."""
        return dataclasses.replace(self, centre=self.centre.pin_memory(), image=self.image.pin_memory())


@dataclass(frozen=True)
class Views:
    """A transform from an image to its views, as in TPT (NeurIPS 2022, section 4.1).

    centre: the model's evaluation transform, from a PIL image to (3, H, W) in [0, 1].
    size: (H, W) of the views, pixels. count: V, number of views, the centre crop included.
    augment: "crop" for resized and mirrored crops, "augmix" for the same and then AugMix, "hard" for the same with at
    least 20% of the image and then BYOL's colour augmentation.
    on_device: return `PlannedViews` rather than views; for "crop" alone.
    Raises ValueError for on_device with another augmentation.
    """

    centre: Callable[[Image.Image], Tensor]
    size: tuple[int, int]
    count: int = 64
    augment: str = "crop"
    seed: int = 0
    on_device: bool = False

    def __post_init__(self) -> None:
        if self.on_device and self.augment != "crop":
            raise ValueError(f"{self.augment} views are not made on the device; only crop views are")

    def __call__(self, image: Image.Image, index: int) -> Tensor | PlannedViews:
        """The views of an image. index: its place in the dataset, which with the seed decides the random numbers.

        Returns (V, 3, H, W), uint8 in 0..255, or float in [0, 1] for "augmix"; with `on_device` the planned views.
        Raises UserError for an index that is no whole number from 0.
        """
        if not isinstance(index, int) or index < 0:
            raise UserError(f"an image's index must be a whole number from 0, not {index!r}")
        rng = np.random.default_rng([self.seed, index])
        centre = (self.centre(image) * 255.0).round().to(torch.uint8)
        # Without random crops the image is not needed, and it may be large: do not copy it.
        pixels = to_tensor(image) if self.count > 1 else centre
        if self.augment == "crop":
            plan = self._plan(centre, pixels, rng)
            return plan if self.on_device else plan.render()
        mixed = self.augment == "augmix"
        views = torch.empty(self.count, 3, *self.size, dtype=torch.float32 if mixed else torch.uint8)
        views[0] = centre / 255.0 if mixed else centre
        for view in views[1:]:
            box, flip = sample_view(*image.size, LEAST_AREA[self.augment], rng)
            small = to_image(crop_and_resize(pixels, box, flip, self.size))
            view.copy_(augmix(small, rng) if mixed else to_tensor(hard(small, rng)))
        return views

    def _plan(self, centre: Tensor, pixels: Tensor, rng: np.random.Generator) -> PlannedViews:
        """Draws the crops. centre: (3, H, W) uint8; pixels: (3, h, w) uint8."""
        height, width = pixels.shape[1:]
        drawn = [sample_view(width, height, LEAST_AREA["crop"], rng) for _ in range(self.count - 1)]
        boxes = torch.tensor([box for box, _ in drawn], dtype=torch.int64).view(-1, 4)
        flips = torch.tensor([flip for _, flip in drawn], dtype=torch.bool)
        return PlannedViews(centre, pixels, boxes, flips, self.size)


def sample_view(width: int, height: int, least: float, rng: np.random.Generator) -> tuple[Box, bool]:
    """Draws the crop of a view and, with probability 0.5, that it is mirrored.

    width, height: of the image, pixels. least: smallest share of the image's area that the crop covers.
    """
    box = sample_crop(width, height, (least, 1.0), rng)
    return box, bool(rng.random() < 0.5)


def sample_crop(
    width: int,
    height: int,
    scale: tuple[float, float],
    rng: np.random.Generator,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """Draws a crop as torchvision's RandomResizedCrop does.

    width, height: of the image, pixels. scale: range of the crop's share of the image's area. ratio: range of its width
    divided by its height. If ten draws do not fit into the image, it is the largest centred crop of an allowed ratio.
    """
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


def crop_and_resize(image: Tensor, box: Box, flip: bool, size: tuple[int, int]) -> Tensor:
    """Cuts a view from an image and resizes it, bilinear with antialiasing as in Pillow.

    image: (3, h, w), uint8 or float in 0..255; `resizing_dtype` tells which. flip: mirror the view left to right.
    size: (H, W) of the view, pixels. Returns (3, H, W) of the image's dtype.
    """
    left, top, right, bottom = box
    part = image[None, :, top:bottom, left:right]
    view = F.interpolate(part, size, mode="bilinear", antialias=True)[0]
    return view.flip(-1) if flip else view


def resizing_dtype(device: torch.device) -> torch.dtype:
    """The dtype for `crop_and_resize`: uint8 on the CPU, else float32. torch antialiases uint8 on the CPU only."""
    return torch.uint8 if device.type == "cpu" else torch.float32
