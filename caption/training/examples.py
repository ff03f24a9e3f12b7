"""Examples that a captioner learns from: captions as tokens, features of images or captions, and CapDec's noise."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from caption.language_model import LanguageModel
from caption.training.features import Features


@dataclass(frozen=True)
class Examples:
    """Captions as token ids, and the features they are learnt from: (N, D), unit length."""

    rows: list[list[int]]
    features: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, lm: LanguageModel, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Features, ids and mask of some examples."""
        ids, mask = lm.pad_rows([self.rows[i] for i in chosen])
        return self.features[torch.from_numpy(chosen)].to(lm.device), ids, mask


def make_examples(lm: LanguageModel, features: Features, kind: str, end_token: bool, source: str) -> Examples:
    """The captions as token ids, with the features that they are learnt from.

    kind: "image" or "text" features; end_token: let a caption end with the token that stops generation.
    Raises UserError, naming `source`, when there are no features of that kind.
    """
    texts = lm.tokenizer(features.captions, add_special_tokens=False)["input_ids"]
    end = [lm.stops[0]] if end_token else []
    inputs = features.of_captions(kind, source)
    return Examples([[lm.bos, *ids, *end] for ids in texts], F.normalize(inputs, dim=-1))


def split_examples(examples: Examples, features: Features, share: float, seed: int) -> tuple[Examples, Examples]:
    """Those to learn from, and a share to validate with; the captions of an image stay together."""
    groups = np.array(features.image_index)
    images = np.random.default_rng(seed).permutation(np.unique(groups))
    held_out = np.isin(groups, images[: round(share * len(images))])
    parts = (np.flatnonzero(~held_out), np.flatnonzero(held_out))
    first, second = (Examples([examples.rows[i] for i in part], examples.features[part]) for part in parts)
    return first, second


def batches(size: int, batch_size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of each batch of a pass, in random order."""
    order = rng.permutation(size)
    return (order[i : i + batch_size] for i in range(0, size, batch_size))


def gaussian_noise(features: Tensor, normal: Tensor, variance: float) -> Tensor:
    """CapDec (Nukrai et al., EMNLP 2022 Findings, section 3).

    features: (N, D), unit length; normal: (N, D) of a standard normal distribution. Returns (N, D), unit length.
    """
    return F.normalize(features + math.sqrt(variance) * normal, dim=-1)


def uniform_noise(features: Tensor, normal: Tensor, uniform: Tensor, variance: float) -> Tensor:
    """The same with noise that is uniform in the ball of radius sqrt(variance).

    normal: (N, D) of a standard normal distribution; uniform: (N,) in [0, 1).
    """
    radius = math.sqrt(variance) * uniform ** (1.0 / features.shape[-1])
    return F.normalize(features + radius[:, None] * F.normalize(normal, dim=-1), dim=-1)
