"""The methods: what each needs.

A method that adapts has its objective in `objectives.OBJECTIVES` under the same name. To add one, write the function
and put it into both tables. Settings are read before torch is imported, so that nothing here needs it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """The needs of a method. One that does not adapt answers with the zero-shot logits.

    told: a line of help. adapts: True for a method that takes gradient steps; asks_rewards: for one that asks the
    reward models; needs_logits: for one that asks them for logits over the whole gallery; samples_answers: for one that
    samples the K likeliest places in the gallery; multiplies: for one whose answer is the product with the reward
    models'. settings: names of those that only some methods have and this one does.
    """

    told: str
    adapts: bool = False
    asks_rewards: bool = False
    needs_logits: bool = False
    samples_answers: bool = False
    multiplies: bool = False
    settings: tuple[str, ...] = ()


GUIDED = ("kl_weight", "gate", "answer")
"""Settings of every method that learns from a reward model."""

METHODS = {
    "zeroshot": Method("the student as it is"),
    "ensemble": Method(
        "product of student's and reward model's probabilities; no steps",
        asks_rewards=True,
        needs_logits=True,
        multiplies=True,
    ),
    "rlcf": Method(
        "steps on the student's likeliest places in the gallery, each weighted with its reward",
        adapts=True,
        asks_rewards=True,
        samples_answers=True,
        settings=("candidates", "stop_when_settled", *GUIDED),
    ),
    "kd": Method(
        "steps towards the reward model's probabilities (distillation)",
        adapts=True,
        asks_rewards=True,
        needs_logits=True,
        settings=GUIDED,
    ),
}
