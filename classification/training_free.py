"""Methods without gradients: votes, modes, caches and means over an image's views.

Each function takes the settings and an `Image` and returns logits, (N, C).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from rlcf.adapt.episode import require_alike
from rlcf.adapt.objectives import combine, entropy, marginal_entropy, mean_prediction, select_confident
from rlcf.adapt.rewards import Seen

if TYPE_CHECKING:
    from classification.config import ClassificationConfig


@dataclass(frozen=True)
class Image:
    """N images before any adaptation, for a method without gradients.

    features: (N, V, D), unit length; classes: (C, D), unit length; logits: (N, V, C), scaled by `scale`; the centre
    crop first. kept: (N, K) indices of the confident views, most confident first; seen: these views as the reward
    models see them, for a method that asks; memory: what the method carries from image to image.
    """

    features: Tensor
    classes: Tensor
    scale: Tensor
    kept: Tensor
    seen: Seen | None = None
    memory: "Cache | None" = None

    @property
    def logits(self) -> Tensor:
        """(N, V, C), scaled."""
        return self.scale * self.features @ self.classes.mT

    @property
    def kept_logits(self) -> Tensor:
        """(N, K, C) of the kept views."""
        logits = self.logits
        return logits.gather(1, self.kept[:, :, None].expand(-1, -1, logits.shape[-1]))

    @property
    def teacher_logits(self) -> Tensor:
        """(N, K, C), the reward models' logits of the kept views."""
        assert self.seen is not None
        return self.seen.teacher_logits


def zeroshot(config: "ClassificationConfig", image: Image) -> Tensor:
    """The centre crop's logits."""
    return image.logits[:, 0]


def zero(config: "ClassificationConfig", image: Image) -> Tensor:
    """Each kept view votes for its likeliest class; most votes win (ZERO, Farina et al., NeurIPS 2024, algorithm 1).

    With `voter` "reward" the kept views are the student's choice and the votes are the reward model's. Of tied classes
    the one wins that the student, on the most confident of the other views, votes for; where it votes for none of them
    on any, the one that it finds likeliest on the first of these views. Returns the logarithm of the votes; the winner
    of a tie has one more.
    """
    logits, keep = image.logits, image.kept.shape[1]
    order = select_confident(logits, logits.shape[1])  # (N, V)
    choices = logits.argmax(dim=-1).gather(1, order)  # (N, V), of the most confident view first
    voted = image.teacher_logits.argmax(dim=-1) if config.voter == "reward" else choices[:, :keep]
    votes = F.one_hot(voted, logits.shape[-1]).sum(dim=1)  # (N, C)
    tied = votes == votes.amax(dim=1, keepdim=True)  # (N, C)
    others = F.pad(choices[:, keep:], (0, 1))  # (N, V - K + 1); the last place is for the likeliest tied class
    next_view = order[:, min(keep, order.shape[1] - 1)]  # (N,)
    # The published code means to leave out the classes that are not tied, and leaves out others.
    left_out = tied.flip(1) if config.published_ties else ~tied
    likeliest = logits[torch.arange(len(logits)), next_view].masked_fill(left_out, -torch.inf).argmax(dim=-1)
    others[:, -1] = likeliest
    decides = tied.gather(1, others)
    decides[:, -1] = True
    first = decides & (decides.cumsum(dim=1) == 1) & (tied.sum(dim=1, keepdim=True) > 1)
    return votes.scatter_add(1, others, first.long()).log()


def mta(config: "ClassificationConfig", image: Image) -> Tensor:
    """The logits of a robust mode of all views' features (MTA, Zanella and Ben Ayed, CVPR 2024, section 3)."""
    rows = zip(image.features, image.logits.softmax(dim=-1), strict=True)
    modes = torch.stack([robust_mode(*row, config.mta_lambda_y, config.mta_lambda_q) for row in rows])
    return image.scale * modes @ image.classes.T


def robust_mode(
    features: Tensor, probabilities: Tensor, lambda_y: float = 0.2, lambda_q: float = 4.0, tolerance: float = 1e-6
) -> Tensor:
    """MeanShift in which each view has an inlierness score that is optimised with the mode (MTA, eq. 4 to 7).

    features: (V, D), unit length, the centre crop first; probabilities: (V, C) of each view; lambda_y: temperature of
    the scores; lambda_q: weight of the views' agreement. Returns (D,), unit length.
    """
    count = len(features)
    squared = torch.cdist(features, features).square()  # (V, V)
    nearest = squared.sort(dim=1).values[:, 1 : 1 + int(0.3 * (count - 1))]
    bandwidth = 0.5 * nearest.mean(dim=1)  # (V,), squared
    agreement = probabilities @ probabilities.T  # (V, V)
    mode, inlierness = features[0], features.new_full((count,), 1.0 / count)

    def density() -> Tensor:
        return (-(features - mode).square().sum(dim=1) / (2.0 * bandwidth)).exp()

    for _ in range(5):
        near = density()
        for _ in range(5):
            before = inlierness
            inlierness = ((near + lambda_q * agreement @ inlierness) / lambda_y).softmax(dim=0)
            if (inlierness - before).norm() < tolerance:
                break
        for _ in range(5):
            previous, weights = mode, density() * inlierness
            mode = F.normalize(weights @ features / weights.sum(), dim=0)
            if (mode - previous).norm() < tolerance:
                break
    return mode


def pooled(config: "ClassificationConfig", logits: Tensor) -> Tensor:
    """Log-probabilities of the kept views together, (N, C). logits: (N, K, C).

    With `pool` "features" they are those of the mean feature, whose logits are the mean logits; else those of the mean
    probabilities. One view alone is its own mean.
    """
    if config.pool == "features":
        return logits.mean(dim=1).log_softmax(dim=-1)
    return mean_prediction(logits)


def student_alone(config: "ClassificationConfig", image: Image) -> Tensor:
    """The student's mean prediction over the kept views (MEMO's marginal, without adaptation)."""
    return pooled(config, image.kept_logits)


def reward_alone(config: "ClassificationConfig", image: Image) -> Tensor:
    """The reward model's own prediction."""
    return pooled(config, image.teacher_logits)


def ensemble(config: "ClassificationConfig", image: Image) -> Tensor:
    """The product, or the mean, of the student's and the reward model's probabilities, as log-probabilities."""
    return combine(student_alone(config, image), reward_alone(config, image), config.combine)


def rerank(config: "ClassificationConfig", image: Image) -> Tensor:
    """The student's K likeliest classes in the order of their mean reward over the kept views.

    The K classes share out the K highest log-probabilities anew; the other classes keep theirs.
    """
    assert image.seen is not None
    student = student_alone(config, image)
    values, answers = student.topk(config.sample_k, dim=-1)  # (N, K)
    asked = answers.unsqueeze(1).expand(-1, image.kept.shape[1], -1)  # (N, views, K)
    order = image.seen.scores(asked).mean(dim=1).argsort(dim=-1, descending=True, stable=True)
    return student.scatter(1, answers.gather(1, order), values)


def tda(config: "ClassificationConfig", image: Image) -> Tensor:
    """CLIP's logits, and two caches of earlier images that add and subtract (TDA, Karmanov et al., CVPR 2024).

    Several views count as one: the means of the kept views' features, logits and probabilities. The image enters the
    caches before they answer.
    """
    assert image.memory is not None
    logits = image.kept_logits  # (N, K, C)
    features = image.features.gather(1, image.kept[:, :, None].expand(-1, -1, image.features.shape[-1])).mean(dim=1)
    uncertainty = marginal_entropy(logits) if logits.shape[1] > 1 else entropy(logits[:, 0])  # (N,)
    rows = zip(features, logits.mean(dim=1), logits.softmax(dim=-1).mean(dim=1), uncertainty.tolist(), strict=True)
    return torch.stack([image.memory.answer(*row) for row in rows])


@dataclass(frozen=True)
class CacheSettings:
    """TDA's hyper-parameters, as published for ImageNet.

    A positive cache of `positive_size` features a class adds alpha * exp(-beta (1 - cos)); a negative one of
    `negative_size` subtracts the same with its own alpha and beta from the classes whose probability is between
    `mask`. `entropy`: bounds of H / log2(C) between which an image enters the negative cache.
    """

    positive_size: int = 3
    positive_alpha: float = 2.0
    positive_beta: float = 5.0
    negative_size: int = 2
    negative_alpha: float = 0.117
    negative_beta: float = 1.0
    entropy: tuple[float, float] = (0.2, 0.5)
    mask: tuple[float, float] = (0.03, 1.0)


class Cache:
    """TDA's two caches. classes: (C, D), for their sizes and device."""

    every = 64

    def __init__(self, classes: Tensor, settings: CacheSettings | None = None) -> None:
        self.settings = settings or CacheSettings()
        self._classes = classes
        self.reset()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        count, width = self._classes.shape
        new, size = self._classes.new_zeros, self.settings
        self.updates = 0
        self._state = {
            "positive": new(count, size.positive_size, width),
            "positive_entropy": new(count, size.positive_size).fill_(math.inf),  # of an empty place
            "negative": new(count, size.negative_size, width),
            "negative_entropy": new(count, size.negative_size).fill_(math.inf),
            "negative_mask": new(count, size.negative_size, count, dtype=torch.bool),
        }

    def answer(self, feature: Tensor, logits: Tensor, probabilities: Tensor, uncertainty: float) -> Tensor:
        """Let an image enter the caches, and answer it. feature: (D,); logits, probabilities: (C,). Returns (C,)."""
        settings, state = self.settings, self._state
        label, (low, high), (least, most) = int(logits.argmax()), settings.entropy, settings.mask
        self._enter("positive", label, uncertainty, {"positive": feature})
        if low < uncertainty / math.log2(len(logits)) < high:
            mask = (probabilities > least) & (probabilities < most)
            self._enter("negative", label, uncertainty, {"negative": feature, "negative_mask": mask})
        self.updates += 1
        near, far = (
            alpha * (-beta * (1.0 - state[kind] @ feature)).exp() * state[f"{kind}_entropy"].isfinite()  # (C, size)
            for kind, alpha, beta in (
                ("positive", settings.positive_alpha, settings.positive_beta),
                ("negative", settings.negative_alpha, settings.negative_beta),
            )
        )
        masked = torch.einsum("ij,ijc->c", far, state["negative_mask"].to(far.dtype))
        return logits + near.sum(dim=1) - masked

    def _enter(self, kind: str, label: int, uncertainty: float, rows: Mapping[str, Tensor]) -> None:
        """Take the place of the class's most uncertain image, or an empty one, unless the new image is no better."""
        held = self._state[f"{kind}_entropy"][label]
        place = int(held.argmax())
        if uncertainty < float(held[place]):
            held[place] = uncertainty
            for name, row in rows.items():
                self._state[name][label, place] = row

    def state_dict(self) -> dict[str, Tensor]:
        """All that a run that continues needs."""
        return {"updates": torch.tensor(self.updates), **self._state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state_dict()`; empty for a fresh cache. Raises ValueError for another one's."""
        if not state:
            return
        require_alike(state, self.state_dict())
        self.updates = int(state["updates"])
        for name, tensor in self._state.items():
            tensor.copy_(state[name])  # into memory laid out as before: products round the same


ANSWERS: "Mapping[str, Callable[[ClassificationConfig, Image], Tensor]]" = {
    "zeroshot": zeroshot,
    "views": student_alone,
    "zero": zero,
    "mta": mta,
    "tda": tda,
    "reward": reward_alone,
    "ensemble": ensemble,
    "rerank": rerank,
}
"""Method -> its answer."""
