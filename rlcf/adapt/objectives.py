"""Losses of test-time adaptation, and the choice of confident views: pure functions of logits.

Shapes are those of one sample; further dimensions before them, of several samples, give a loss for each.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rlcf.adapt.rewards import LEFT_OUT, advantages


class Step(NamedTuple):
    """The loss of one step, and what it came from.

    loss: scalar with a graph; answers: (V, K) sampled answers; rewards, advantages: (V, K). None where a method has
    none. Of N samples, N stands before each shape.
    """

    loss: Tensor
    answers: Any = None
    rewards: Tensor | None = None
    advantages: Tensor | None = None


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each row's softmax.

    logits: (V, C). Returns (V,), nats.
    """
    log_probs = logits.log_softmax(dim=-1)
    return -(log_probs.exp() * log_probs).sum(dim=-1)


def select_confident(logits: Tensor, keep: int) -> Tensor:
    """Indices of the `keep` views with the lowest entropy, most confident first (TPT, NeurIPS 2022, section 3.2).

    logits: (V, C). Returns (keep,) long.
    """
    return torch.argsort(entropy(logits), dim=-1)[..., :keep]


def policy_gradient(log_likelihood: Tensor, advantages: Tensor) -> Tensor:
    """REINFORCE over the sampled answers: mean of advantage * negative log-likelihood (RLCF, ICLR 2024, eq. 3).

    log_likelihood: (V, K), nats, with a graph; advantages: (V, K), constants. An answer whose advantage is `LEFT_OUT`
    does not count. Returns a scalar.

    >>> policy_gradient(torch.tensor([[-1.0, -2.0]]), torch.tensor([[0.5, -0.5]])).item()  # (0.5 * 1 - 0.5 * 2) / 2
    -0.25
    """
    counted = advantages != LEFT_OUT
    terms = torch.where(counted, advantages, 0) * -log_likelihood
    return terms.sum(dim=(-2, -1)) / counted.sum(dim=(-2, -1)).clamp(min=1)


def clipped_policy_gradient(log_likelihood: Tensor, before: Tensor, advantages: Tensor, epsilon: float) -> Tensor:
    """GRPO's objective without its KL term (Shao et al., DeepSeekMath, 2024, eq. 3).

    The mean of min(ratio * advantage, clip(ratio, 1 - epsilon, 1 + epsilon) * advantage), negated; the ratio is that of
    the answers' likelihoods now and before the first step. log_likelihood, before: (V, K), nats; advantages: (V, K), as
    in `policy_gradient`. Returns a scalar.

    >>> now, before = torch.tensor([[0.5, 0.2]]).log(), torch.tensor([[0.25, 0.2]]).log()
    >>> round(clipped_policy_gradient(now, before, torch.tensor([[1.0, -1.0]]), 0.2).item(), 4)  # -(1.2 - 1) / 2
    -0.1
    """
    counted = advantages != LEFT_OUT
    ratio = (log_likelihood - before).exp()
    gains = torch.where(counted, advantages, 0)
    terms = torch.minimum(ratio * gains, ratio.clamp(1.0 - epsilon, 1.0 + epsilon) * gains)
    return -terms.sum(dim=(-2, -1)) / counted.sum(dim=(-2, -1)).clamp(min=1)


def reinforce(
    logits: Tensor,
    score: Callable[[Tensor], Tensor],
    k: int,
    baseline: str = "answers",
    divide_by_std: bool = False,
    further: Tensor | None = None,
    clip: tuple[Tensor, float] | None = None,
) -> Step:
    """One step of RLCF over a fixed list of answers: sample the k likeliest, score them, take the policy gradient.

    logits: (V, C) of the list; score: from answers, (V, K) indices, to their rewards, (V, K); baseline,
    divide_by_std: as in `advantages`; further: (V, K') answers that are sampled as well, each once. clip: the logits
    before the first step and epsilon; then the answers are sampled from those logits, and the objective is
    `clipped_policy_gradient`.
    """
    answers = (logits if clip is None else clip[0]).topk(k, dim=-1).indices
    rewards = score(answers)
    if further is not None:
        repeated = (further.unsqueeze(-1) == answers.unsqueeze(-2)).any(dim=-1)
        rewards = torch.cat([rewards, score(further).masked_fill(repeated, LEFT_OUT)], dim=-1)
        answers = torch.cat([answers, further], dim=-1)
    advantage = advantages(rewards, baseline, divide_by_std)
    log_likelihood = logits.log_softmax(dim=-1).gather(-1, answers)
    if clip is None:
        return Step(policy_gradient(log_likelihood, advantage), answers, rewards, advantage)
    before = clip[0].log_softmax(dim=-1).gather(-1, answers)
    return Step(clipped_policy_gradient(log_likelihood, before, advantage, clip[1]), answers, rewards, advantage)


def mean_prediction(logits: Tensor) -> Tensor:
    """Log-probabilities of the mean prediction over views. logits: (V, C). Returns (C,)."""
    return logits.log_softmax(dim=-1).logsumexp(dim=-2) - math.log(logits.shape[-2])


def combine(student: Tensor, reward: Tensor, how: str) -> Tensor:
    """The student's and the reward model's probabilities in one, as log-probabilities.

    student, reward: (..., C) logits; how: "product", divided by its sum, or "mean". Returns (..., C).

    >>> student, reward = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()
    >>> combine(student, reward, "mean").exp()
    tensor([0.7000, 0.3000])
    """
    student, reward = student.log_softmax(dim=-1), reward.log_softmax(dim=-1)
    if how == "product":
        return (student + reward).log_softmax(dim=-1)
    return torch.logaddexp(student, reward) - math.log(2.0)


def agree(first: Tensor, second: Tensor) -> Tensor:
    """True where two models' mean predictions have the same likeliest answer. first, second: (V, C). Returns a bool."""
    return mean_prediction(first).argmax(dim=-1) == mean_prediction(second).argmax(dim=-1)


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy of the mean prediction over views (MEMO; TPT eq. 2 and 3).

    logits: (V, C). Returns a scalar, nats.
    """
    mean_log_probs = mean_prediction(logits)
    mean_log_probs = mean_log_probs.clamp(min=torch.finfo(mean_log_probs.dtype).min)
    return -(mean_log_probs.exp() * mean_log_probs).sum(dim=-1)


def kl_divergence(logits: Tensor, before: Tensor) -> Tensor:
    """KL(now || before) of each view's prediction, averaged over the views.

    logits, before: (V, C), before: of the weights before the first step. Returns a scalar, nats.
    """
    now, then = logits.log_softmax(dim=-1), before.log_softmax(dim=-1)
    return (now.exp() * (now - then)).sum(dim=-1).mean(dim=-1)


def kl_estimate(now: Tensor, before: Tensor) -> Tensor:
    """Unbiased estimate of KL(now || before) from samples of `now` (Shao et al., DeepSeekMath, 2024, eq. 4).

    now, before: (...) log-likelihoods of what was sampled, nats. Returns (...), nats, at least 0.
    """
    ratio = before - now
    return ratio.exp() - ratio - 1.0


def text_dispersion(classes: Tensor) -> Tensor:
    """Mean distance of the classes' features from their mean (C-TPT, Yoon et al., ICLR 2024, eq. 4).

    classes: (C, D). Returns a scalar.
    """
    return (classes - classes.mean(dim=-2, keepdim=True)).norm(dim=-1).mean(dim=-1)


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    """Knowledge distillation (Hinton et al. 2015) at temperature 1: cross-entropy with the teacher's softmax.

    student, teacher: (V, C) logits, each with its own model's scale. Returns a scalar.
    """
    return -(teacher.softmax(dim=-1) * student.log_softmax(dim=-1)).sum(dim=-1).mean(dim=-1)


def dkd(student: Tensor, teacher: Tensor, alpha: float = 1.0, beta: float = 0.5) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al., CVPR 2022, eq. 7); the target is the teacher's top class.

    student, teacher: (V, C) logits, C >= 2. Returns alpha * TCKD + beta * NCKD, temperature 1.
    """
    target = teacher.argmax(dim=-1, keepdim=True)  # (V, 1)
    others = torch.arange(teacher.shape[-1] - 1, device=teacher.device)
    others = others + (others >= target)  # (V, C - 1) all classes but the target

    def target_or_not(logits: Tensor) -> Tensor:  # (V, 2) log-probabilities: the target, all the rest
        log_probs = logits.log_softmax(dim=-1)
        rest = log_probs.scatter(-1, target, -torch.inf).logsumexp(dim=-1, keepdim=True)
        return torch.cat([log_probs.gather(-1, target), rest], dim=-1)

    def among_the_rest(logits: Tensor) -> Tensor:  # (V, C - 1)
        return logits.gather(-1, others).log_softmax(dim=-1)

    def divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
        return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=-1).mean(dim=-1)

    tckd = divergence(target_or_not(student), target_or_not(teacher))
    nckd = divergence(among_the_rest(student), among_the_rest(teacher))
    return alpha * tckd + beta * nckd


def atkd(student: Tensor, teacher: Tensor, scale: str = "std", multiplier: float = 2.0, eps: float = 1e-5) -> Tensor:
    """Adaptive-temperature distillation (Guo et al., Reducing the Teacher-Student Gap via Spherical KD, 2020).

    student, teacher: (V, C) logits. Each row is divided by its scale, a constant; the student's scale squared
    multiplies the divergence. scale: "std", as the method is meant; "mean", as in the published runs, where the two
    are swapped.
    """

    def scale_of(logits: Tensor) -> Tensor:
        std, mean = torch.std_mean(logits.detach(), dim=-1, correction=0, keepdim=True)
        return {"std": std, "mean": mean}[scale]

    log_q = (multiplier * student / (scale_of(student) + eps)).log_softmax(dim=-1)
    log_p = (multiplier * teacher / (scale_of(teacher) + eps)).log_softmax(dim=-1)
    divergence = F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(dim=-1, keepdim=True)
    return (divergence * scale_of(student) ** 2).mean(dim=(-2, -1))
