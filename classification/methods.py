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
from rlcf.adapt.objectives import Step, atkd, dkd, kd, marginal_entropy, reinforce
from rlcf.adapt.rewards import Seen

if TYPE_CHECKING:
    from classification.config import ClassificationConfig


@dataclass(frozen=True)
class Method:
    """What a method is.

    objective: from the settings, the logits of the views that are learnt from, (N, V, C), and these views as the reward
    models see them, to a `Step` with a loss for each sample. answer: from the settings and an `Image` to logits (N, C).
    asks_rewards: True for a method that asks the reward models, distils: for one that asks them for logits over all
    classes, samples_answers: for one that samples the K likeliest classes; uses_views: False for one that needs the
    centre crop alone; memory: from the classes' features, (C, D), to what the method carries from image to image;
    settings: names of those that only some methods have and this one does.
    """

    objective: "Callable[[ClassificationConfig, Tensor, Seen | None], Step] | None" = None
    answer: "Callable[[ClassificationConfig, Image], Tensor] | None" = None
    asks_rewards: bool = False
    distils: bool = False
    samples_answers: bool = False
    uses_views: bool = True
    memory: Callable[[Tensor], Cache] | None = None
    settings: tuple[str, ...] = ()

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


METHODS = {
    "zeroshot": Method(answer=lambda config, image: image.logits[:, 0], uses_views=False),
    "tpt": Method(objective=lambda config, logits, seen: Step(marginal_entropy(logits))),
    "rlcf": Method(objective=rlcf, asks_rewards=True, samples_answers=True, settings=("entropy_weight",)),
    "kd": Method(objective=partial(distil, kd), asks_rewards=True, distils=True, settings=("entropy_weight",)),
    "dkd": Method(objective=partial(distil, dkd), asks_rewards=True, distils=True, settings=("entropy_weight",)),
    "atkd": Method(
        objective=lambda config, logits, seen: distil(atkd, config, logits, seen, scale=config.atkd_scale),
        asks_rewards=True,
        distils=True,
        settings=("entropy_weight", "atkd_scale"),
    ),
    "views": Method(answer=training_free.mean_prediction, settings=("pool",)),
    "zero": Method(answer=training_free.zero, settings=("voter", "published_ties")),
    "mta": Method(answer=training_free.mta, settings=("mta_lambda_y", "mta_lambda_q")),
    "tda": Method(answer=training_free.tda, memory=Cache),
    "reward": Method(answer=training_free.reward_alone, asks_rewards=True, distils=True, settings=("pool",)),
    "ensemble": Method(answer=training_free.ensemble, asks_rewards=True, distils=True, settings=("pool", "combine")),
    "rerank": Method(answer=training_free.rerank, asks_rewards=True, samples_answers=True, settings=("pool",)),
}
