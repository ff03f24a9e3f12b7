"""The methods: what each needs, and its objective or its answer.

A method that adapts has an `objective`, which each step minimises. A method without gradients has an `answer`. To add
one, write the function and put it into `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor

from rlcf.adapt.objectives import Step, atkd, dkd, kd, marginal_entropy, reinforce, select_confident
from rlcf.adapt.rewards import Seen

if TYPE_CHECKING:
    from classification.config import ClassificationConfig


@dataclass(frozen=True)
class Image:
    """N images before any adaptation, for a method without gradients.

    features: (N, V, D), unit length; logits: (N, V, C), scaled; the centre crop first. kept: (N, K) indices of the
    confident views, most confident first; seen: these views as the reward models see them, for a method that asks.
    """

    features: Tensor
    logits: Tensor
    kept: Tensor
    seen: Seen | None


@dataclass(frozen=True)
class Method:
    """What a method is.

    objective: from the settings, the logits of the views that are learnt from, (N, V, C), and these views as the reward
    models see them, to a `Step` with a loss for each sample. answer: from the settings and an `Image` to logits (N, C).
    asks_rewards: True for a method that asks the reward models, distils: for one that asks them for logits over all
    classes, samples_answers: for one that samples the K likeliest classes; uses_views: False for one that needs the
    centre crop alone.
    """

    objective: "Callable[[ClassificationConfig, Tensor, Seen | None], Step] | None" = None
    answer: "Callable[[ClassificationConfig, Image], Tensor] | None" = None
    asks_rewards: bool = False
    distils: bool = False
    samples_answers: bool = False
    uses_views: bool = True

    @property
    def adapts(self) -> bool:
        """True for a method that takes gradient steps."""
        return self.objective is not None


def rlcf(config: "ClassificationConfig", logits: Tensor, seen: Seen | None) -> Step:
    """Policy gradient on the K likeliest classes with CLIP reward (RLCF, ICLR 2024, eq. 3 and 4)."""
    assert seen is not None
    return reinforce(logits, seen.scores, config.sample_k, config.baseline, config.divide_by_std)


def distil(
    loss: Callable[..., Tensor], config: "ClassificationConfig", logits: Tensor, seen: Seen | None, **options: str
) -> Step:
    """Distillation from the reward models' logits; see `kd`, `dkd` and `atkd`."""
    assert seen is not None
    return Step(loss(logits, seen.teacher_logits, **options))


def zero(config: "ClassificationConfig", image: Image) -> Tensor:
    """Each kept view votes for its likeliest class; most votes win (ZERO, Farina et al., NeurIPS 2024, algorithm 1).

    Of tied classes the one wins that the most confident of the other views votes for. Returns (N, C), the logarithm of
    the votes; the winner of a tie has one more.
    """
    order = select_confident(image.logits, image.logits.shape[1])  # (N, V)
    choices = image.logits.argmax(dim=-1).gather(1, order)  # (N, V), of the most confident view first
    keep = image.kept.shape[1]
    votes = F.one_hot(choices[:, :keep], image.logits.shape[-1]).sum(dim=1)  # (N, C)
    tied = votes == votes.amax(dim=1, keepdim=True)  # (N, C)
    among_tied = tied.gather(1, choices[:, keep:]) & (tied.sum(dim=1, keepdim=True) > 1)  # (N, V - K)
    first = among_tied & (among_tied.cumsum(dim=1) == 1)
    return votes.scatter_add(1, choices[:, keep:], first.long()).log()


METHODS = {
    "zeroshot": Method(answer=lambda config, image: image.logits[:, 0], uses_views=False),
    "zero": Method(answer=zero),
    "tpt": Method(objective=lambda config, logits, seen: Step(marginal_entropy(logits))),
    "rlcf": Method(objective=rlcf, asks_rewards=True, samples_answers=True),
    "kd": Method(objective=partial(distil, kd), asks_rewards=True, distils=True),
    "dkd": Method(objective=partial(distil, dkd), asks_rewards=True, distils=True),
    "atkd": Method(
        objective=lambda config, logits, seen: distil(atkd, config, logits, seen, scale=config.atkd_scale),
        asks_rewards=True,
        distils=True,
    ),
}
