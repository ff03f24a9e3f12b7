"""The methods: what each needs, and its objective.

To add one, write its objective and put it into `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from rlcf.adapt.objectives import Step, kd, reinforce
from rlcf.adapt.rewards import Seen

if TYPE_CHECKING:
    from retrieval.config import RetrievalConfig


@dataclass(frozen=True)
class Method:
    """One method.

    objective: from the settings, the query's logits over the gallery, (1, 1, G), and the query as the reward models see
    it, to a `Step` with a loss of shape (1,); None for a method that answers with the zero-shot logits. asks_rewards:
    True for a method that asks the reward models, needs_logits: for one that asks them for logits over the whole
    gallery, samples_answers: for one that samples the K likeliest places in the gallery; multiplies: for one whose
    answer is the product with the reward models'. settings: names of those that only some methods have and this one
    does.
    """

    objective: "Callable[[RetrievalConfig, Tensor, Seen | None], Step] | None" = None
    asks_rewards: bool = False
    needs_logits: bool = False
    samples_answers: bool = False
    multiplies: bool = False
    settings: tuple[str, ...] = ()

    @property
    def adapts(self) -> bool:
        """True for a method that takes gradient steps."""
        return self.objective is not None


def rlcf(config: "RetrievalConfig", logits: Tensor, seen: Seen | None) -> Step:
    """Policy gradient on sampled places in the gallery with CLIP reward (RLCF, ICLR 2024, eq. 3 and 4).

    As published, the samples are the student's K likeliest places.
    """
    assert seen is not None
    both = config.candidates == "both"
    further = seen.teacher_logits.topk(config.sample_k, dim=-1).indices if both else None
    return reinforce(logits, seen.scores, config.sample_k, config.baseline, config.divide_by_std, further)


def distil(config: "RetrievalConfig", logits: Tensor, seen: Seen | None) -> Step:
    """Distillation from the reward models' logits over the gallery; see `kd`."""
    assert seen is not None
    return Step(kd(logits, seen.teacher_logits))


GUIDED = ("kl_weight", "gate", "answer")
"""Settings of every method that learns from a reward model."""

METHODS = {
    "zeroshot": Method(),
    "ensemble": Method(asks_rewards=True, needs_logits=True, multiplies=True),
    "rlcf": Method(objective=rlcf, asks_rewards=True, samples_answers=True, settings=("candidates", *GUIDED)),
    "kd": Method(objective=distil, asks_rewards=True, needs_logits=True, settings=GUIDED),
}
