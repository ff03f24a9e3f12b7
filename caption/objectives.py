"""The objectives of the methods that adapt: what each step minimises.

Each function takes the settings, the sampled captions of N images, and the images as the reward models see them, and
returns a `Step` with a loss for each image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from rlcf.adapt.objectives import Step, kl_estimate, policy_gradient
from rlcf.adapt.rewards import LEFT_OUT, Seen, advantages

if TYPE_CHECKING:
    from caption.config import CaptionConfig


@dataclass(frozen=True)
class Sampled:
    """The captions that a step samples.

    texts: K captions of each of N images; now: (N, K, L) log-likelihood of each caption's tokens, nats, with a graph;
    before: the same before the first step, constants, where it is asked for; tokens: (N, K, L), 0 for padding that does
    not count; repeated: (N, K), True for a caption that stands in the list before and does not count.
    """

    texts: list[list[str]]
    now: Tensor
    tokens: Tensor
    repeated: Tensor
    before: Tensor | None = None

    @property
    def log_likelihood(self) -> Tensor:
        """(N, K), nats, the mean over each caption's tokens."""
        return masked_mean(self.now, self.tokens)

    @property
    def divergence(self) -> Tensor:
        """(N,), nats, KL(now || before) a token, estimated on the captions."""
        assert self.before is not None
        tokens = self.tokens * ~self.repeated.unsqueeze(-1)
        return masked_mean(kl_estimate(self.now, self.before).flatten(1), tokens.flatten(1))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row where the mask is not 0. values, mask: (..., L). Returns (...).

    >>> import torch
    >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]])).tolist()
    [2.0]
    """
    return (values * mask).sum(dim=-1) / mask.sum(dim=-1)


def rlcf(config: "CaptionConfig", sampled: Sampled, seen: Seen | None) -> Step:
    """Policy gradient on the sampled captions with CLIP reward (RLCF, ICLR 2024, eq. 3 and 4).

    An image has one view: its answers, rewards and advantages are (N, 1, K).
    """
    assert seen is not None
    rewards = seen.scores(sampled.texts).masked_fill(sampled.repeated, LEFT_OUT)[:, None]
    advantage = advantages(rewards, config.baseline, config.divide_by_std)
    loss = policy_gradient(sampled.log_likelihood[:, None], advantage)
    if config.kl_weight:
        loss = loss + config.kl_weight * sampled.divergence
    return Step(loss, [[texts] for texts in sampled.texts], rewards, advantage)


OBJECTIVES: "Mapping[str, Callable[[CaptionConfig, Sampled, Seen | None], Step]]" = {"rlcf": rlcf}
"""Method -> its objective."""
