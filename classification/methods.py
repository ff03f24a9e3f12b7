"""The methods: what each needs, and its objective or its answer.

A method that adapts has an `objective`, which each step minimises. A method without gradients has an `answer`. To add
one, write the function and put it into `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from classification import training_free
from classification.training_free import Cache, Image
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


@dataclass(frozen=True)
class Method:
    """A method: its needs, and its objective or its answer.

    objective: from the settings and the views that are learnt from to a `Step` with a loss for each sample. answer:
    from the settings and an `Image` to logits (N, C).
    asks_rewards: True for a method that asks the reward models; needs_logits: for one that asks them for logits over
    all classes; samples_answers: for one that samples the K likeliest classes; moves_classes: for one that is for
    tuning the prompt. uses_views: False for one that needs the centre crop alone; changes_answer: for one whose answer
    is the zero-shot one.
    memory: from the classes' features, (C, D), to what the method carries from image to image; settings: names of those
    that only some methods have and this one does.
    """

    objective: "Callable[[ClassificationConfig, Kept], Step] | None" = None
    answer: "Callable[[ClassificationConfig, Image], Tensor] | None" = None
    asks_rewards: bool = False
    needs_logits: bool = False
    samples_answers: bool = False
    moves_classes: bool = False
    uses_views: bool = True
    changes_answer: bool = True
    memory: Callable[[Tensor], Cache] | None = None
    settings: tuple[str, ...] = ()

    @property
    def adapts(self) -> bool:
        """True for a method that takes gradient steps."""
        return self.objective is not None


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


GUIDED = ("entropy_weight", "kl_weight", "learn_from_centre", "gate", "answer")
"""Settings of every method that learns from a reward model."""

METHODS = {
    "zeroshot": Method(answer=lambda config, image: image.logits[:, 0], uses_views=False, changes_answer=False),
    "tpt": Method(objective=tpt),
    "ctpt": Method(objective=ctpt, moves_classes=True, settings=("dispersion_weight",)),
    "rlcf": Method(
        objective=rlcf,
        asks_rewards=True,
        samples_answers=True,
        settings=("candidates", "clip_ratio", *GUIDED),
    ),
    "kd": Method(objective=partial(distil, kd), asks_rewards=True, needs_logits=True, settings=GUIDED),
    "dkd": Method(objective=partial(distil, dkd), asks_rewards=True, needs_logits=True, settings=GUIDED),
    "atkd": Method(objective=distil_adaptive, asks_rewards=True, needs_logits=True, settings=("atkd_scale", *GUIDED)),
    "views": Method(answer=training_free.student_alone, settings=("pool",)),
    "zero": Method(answer=training_free.zero, settings=("voter", "published_ties")),
    "mta": Method(answer=training_free.mta, settings=("mta_lambda_y", "mta_lambda_q")),
    "tda": Method(answer=training_free.tda, memory=Cache),
    "reward": Method(answer=training_free.reward_alone, asks_rewards=True, needs_logits=True, settings=("pool",)),
    "ensemble": Method(
        answer=training_free.ensemble, asks_rewards=True, needs_logits=True, settings=("pool", "combine")
    ),
    "rerank": Method(answer=training_free.rerank, asks_rewards=True, samples_answers=True, settings=("pool",)),
}
