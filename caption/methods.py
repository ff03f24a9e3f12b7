"""The methods: what each needs, and its objective.

A method that adapts has an `objective`, which each step minimises; one without answers with the captioner as it was
loaded. To add one, write the function and put it into `METHODS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from rlcf.adapt.objectives import Step, policy_gradient
from rlcf.adapt.rewards import Seen, advantages

if TYPE_CHECKING:
    from caption.config import CaptionConfig


@dataclass(frozen=True)
class Sampled:
    """The captions that a step samples.

    texts: K captions of each of N images; log_likelihood: (N, K), nats, the mean over each caption's tokens, with a
    graph.
    """

    texts: list[list[str]]
    log_likelihood: Tensor


@dataclass(frozen=True)
class Method:
    """A method of adaptation, or none.

    objective: from the settings, the sampled captions, and the images as the reward models see them, to a `Step` with a
    loss for each image. asks_rewards: True for a method that asks the reward models.
    """

    objective: "Callable[[CaptionConfig, Sampled, Seen | None], Step] | None" = None
    asks_rewards: bool = False

    @property
    def adapts(self) -> bool:
        """True for a method that takes gradient steps."""
        return self.objective is not None


def rlcf(config: "CaptionConfig", sampled: Sampled, seen: Seen | None) -> Step:
    """Policy gradient on the sampled captions with CLIP reward (RLCF, ICLR 2024, eq. 3 and 4).

    An image has one view: its answers, rewards and advantages are (N, 1, K).
    """
    assert seen is not None
    rewards = seen.scores(sampled.texts)[:, None]
    advantage = advantages(rewards, config.baseline, config.divide_by_std)
    loss = policy_gradient(sampled.log_likelihood[:, None], advantage)
    return Step(loss, [[texts] for texts in sampled.texts], rewards, advantage)


METHODS = {"zeroshot": Method(), "rlcf": Method(objective=rlcf, asks_rewards=True)}
