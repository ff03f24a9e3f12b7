"""The objectives of the methods that adapt: what each step minimises.

Each function takes the settings, the query's logits over the gallery, (1, 1, G), and the query as the reward models see
it, and returns a `Step` with a loss of shape (1,).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from rlcf.adapt.objectives import Step, kd, reinforce
from rlcf.adapt.rewards import Seen

if TYPE_CHECKING:
    from retrieval.config import RetrievalConfig


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


OBJECTIVES: "Mapping[str, Callable[[RetrievalConfig, Tensor, Seen | None], Step]]" = {"rlcf": rlcf, "kd": distil}
"""Method -> its objective."""
