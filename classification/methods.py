"""The methods: what each needs.

A method that adapts has its objective in `objectives.OBJECTIVES`, one without gradients its answer in
`training_free.ANSWERS`, under the same name. To add one, write the function and put it into its table and into
`METHODS`. Settings are read before torch is imported, so that nothing here needs it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """The needs of a method.

    told: a line of help. adapts: True for a method that takes gradient steps. asks_rewards: for one that asks the
    reward models; needs_logits: for one that asks them for logits over all classes; samples_answers: for one that
    samples the K likeliest classes; moves_classes: for one that is for tuning the prompt; remembers: for one that
    carries something from image to image. uses_views: False for one that needs the centre crop alone; changes_answer:
    for one whose answer is the zero-shot one. settings: names of those that only some methods have and this one does.
    """

    told: str
    adapts: bool = False
    asks_rewards: bool = False
    needs_logits: bool = False
    samples_answers: bool = False
    moves_classes: bool = False
    remembers: bool = False
    uses_views: bool = True
    changes_answer: bool = True
    settings: tuple[str, ...] = ()


GUIDED = ("entropy_weight", "kl_weight", "learn_from_centre", "gate", "answer")
"""Settings of every method that learns from a reward model."""

METHODS = {
    "zeroshot": Method("the student on the centre crop, as it is", uses_views=False, changes_answer=False),
    "tpt": Method("steps on the entropy of the views' mean prediction; no reward model", adapts=True),
    "ctpt": Method(
        "tpt, and the class features are kept apart; prompt only",
        adapts=True,
        moves_classes=True,
        settings=("dispersion_weight",),
    ),
    "rlcf": Method(
        "steps on the student's likeliest classes, each weighted with its reward",
        adapts=True,
        asks_rewards=True,
        samples_answers=True,
        settings=("candidates", "clip_ratio", "stop_when_settled", *GUIDED),
    ),
    "kd": Method(
        "steps towards the reward model's probabilities (distillation)",
        adapts=True,
        asks_rewards=True,
        needs_logits=True,
        settings=GUIDED,
    ),
    "dkd": Method(
        "kd with the likeliest class and the others apart",
        adapts=True,
        asks_rewards=True,
        needs_logits=True,
        settings=GUIDED,
    ),
    "atkd": Method(
        "kd with logits divided by their own scale",
        adapts=True,
        asks_rewards=True,
        needs_logits=True,
        settings=("atkd_scale", *GUIDED),
    ),
    "views": Method("mean prediction of the most confident views; no steps, as all below", settings=("pool",)),
    "zero": Method("each of the most confident views votes for a class", settings=("voter", "published_ties")),
    "mta": Method("robust mode of all views' features", settings=("mta_lambda_y", "mta_lambda_q")),
    "tda": Method("caches of confident features from earlier images; one process", remembers=True),
    "reward": Method("the reward model alone", asks_rewards=True, needs_logits=True, settings=("pool",)),
    "ensemble": Method(
        "product or mean of student's and reward model's probabilities",
        asks_rewards=True,
        needs_logits=True,
        settings=("pool", "combine"),
    ),
    "rerank": Method(
        "the student's likeliest classes in the order of their rewards",
        asks_rewards=True,
        samples_answers=True,
        settings=("pool",),
    ),
}
