"""The methods: what each needs.

A method that adapts has its objective in `objectives.OBJECTIVES` under the same name; one that does not answers with
the captioner as it was loaded. To add one, write the function and put it into both tables. Settings are read before
torch is imported, so that nothing here needs it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """The needs of a method.

    told: a line of help. adapts: True for a method that takes gradient steps; asks_rewards: for one that asks the
    reward models; reranks: for one that answers with the best rewarded of the K captions of the captioner as it was
    loaded; settings: names of those that only some methods have and this one does.
    """

    told: str
    adapts: bool = False
    asks_rewards: bool = False
    needs_logits: bool = False  # captions are no fixed list over which a reward model has logits
    reranks: bool = False
    settings: tuple[str, ...] = ()


METHODS = {
    "zeroshot": Method("the captioner as it is"),
    "rerank": Method("the best rewarded of the captioner's K captions; no steps", asks_rewards=True, reranks=True),
    "rlcf": Method(
        "steps on the captioner's K captions, each weighted with its reward",
        adapts=True,
        asks_rewards=True,
        settings=("candidates", "kl_weight", "stop_when_settled"),
    ),
}
