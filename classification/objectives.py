"""The objectives of the methods that adapt: what each step minimises.

Each function takes the settings and the kept views of N images and returns a `Step` with a loss for each image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from rlcf.adapt.objectives import Step, atkd, dkd, kd, marginal_entropy, reinforce, text_dispersion
from rlcf.adapt.rewards import Seen

if TYPE_CHECKING:
    from classification.config import ClassificationConfig


@dataclass(frozen=True)
class Kept:
    """The kept views of N images in a step.

    logits: (N, K, C), with a graph; before: the same before the first step, constants; classes: (N, C, D) or (C, D),
    unit-length features of the classes, with a graph where the prompt is tuned; seen: the views as the reward models
    see them, for a method that asks.
    """

    logits: Tensor
    before: Tensor
    classes: Tensor
    seen: Seen | None = None

    @property
    def rewards(self) -> Seen:
        """`seen`, for a method that asks the reward models."""
        assert self.seen is not None
        return self.seen


def tpt(config: "ClassificationConfig", kept: Kept) -> Step:
    """Entropy of the mean prediction (TPT, Shu et al., NeurIPS 2022, eq. 2 and 3)."""
    return Step(marginal_entropy(kept.logits))


def ctpt(config: "ClassificationConfig", kept: Kept) -> Step:
    """TPT's entropy, and a reward for class features that lie apart (C-TPT, Yoon et al., ICLR 2024, eq. 5)."""
    return Step(marginal_entropy(kept.logits) - config.dispersion_weight * text_dispersion(kept.classes))


def rlcf(config: "ClassificationConfig", kept: Kept) -> Step:
    """Policy gradient on sampled classes with CLIP reward (RLCF, Zhao et al., ICLR 2024, eq. 3 and 4).

    As published, the samples are the student's K likeliest classes.
    """
    both = config.candidates == "both"
    return reinforce(
        kept.logits,
        kept.rewards.scores,
        config.sample_k,
        config.baseline,
        config.divide_by_std,
        further=kept.rewards.teacher_logits.topk(config.sample_k, dim=-1).indices if both else None,
        clip=(kept.before, config.clip_ratio) if config.clip_ratio else None,
    )


def distil(loss: Callable[[Tensor, Tensor], Tensor], config: "ClassificationConfig", kept: Kept) -> Step:
    """Distillation from the reward models' logits; see `kd`, `dkd` and `atkd`."""
    return Step(loss(kept.logits, kept.rewards.teacher_logits))


def distil_adaptive(config: "ClassificationConfig", kept: Kept) -> Step:
    """Distillation with temperatures that fit each view; see `atkd`."""
    return Step(atkd(kept.logits, kept.rewards.teacher_logits, config.atkd_scale))


OBJECTIVES: "Mapping[str, Callable[[ClassificationConfig, Kept], Step]]" = {
    "tpt": tpt,
    "ctpt": ctpt,
    "rlcf": rlcf,
    "kd": partial(distil, kd),
    "dkd": partial(distil, dkd),
    "atkd": distil_adaptive,
}
"""Method -> its objective."""
