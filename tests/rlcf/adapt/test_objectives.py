import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlcf.adapt.objectives import (
    atkd,
    dkd,
    entropy,
    kd,
    marginal_entropy,
    policy_gradient,
    reinforce,
    select_confident,
)
from rlcf.adapt.rewards import LEFT_OUT, advantages

LOG_2 = math.log(2)


def logits_of(rows, columns):
    numbers = st.floats(-8, 8, width=32)
    return st.lists(st.lists(numbers, min_size=columns, max_size=columns), min_size=rows, max_size=rows).map(
        torch.tensor
    )


def log(*probabilities):
    return torch.tensor([probabilities]).log()


def relative_entropy(student, teacher):
    p = teacher.softmax(dim=-1)
    return (p * (p.log() - student.log_softmax(dim=-1))).sum(dim=-1).mean()


# ---- entropy, and the choice of views ----


def test_entropy_of_a_half_and_two_quarters_is_one_and_a_half_bits():
    assert entropy(log(0.5, 0.25, 0.25)).item() == pytest.approx(1.5 * LOG_2)


def test_entropy_of_a_certain_answer_is_zero():
    assert entropy(torch.tensor([[1000.0, 0.0, -1000.0]])).item() == 0.0


@given(logits_of(3, 5), st.floats(-5, 5))
def test_entropy_is_per_row_and_blind_to_a_shift_of_the_logits(logits, shift):
    torch.testing.assert_close(entropy(logits + shift), torch.cat([entropy(row[None]) for row in logits]))


@given(logits_of(4, 6))
def test_entropy_lies_between_zero_and_log_of_the_classes(logits):
    values = entropy(logits)
    assert bool((values >= 0).all() and (values <= math.log(6) + 1e-5).all())


def test_confident_views_come_first():
    logits = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 9.0]])
    assert select_confident(logits, 2).tolist() == [4, 1]
    assert select_confident(logits, 5).tolist() == [4, 1, 3, 0, 2]


def test_views_of_several_samples_are_chosen_for_each():
    logits = torch.randn(3, 6, 4)
    each = torch.stack([select_confident(views, 2) for views in logits])
    assert torch.equal(select_confident(logits, 2), each)


@given(logits_of(8, 4), st.integers(1, 7))
def test_no_discarded_view_is_more_confident_than_a_chosen_one(logits, keep):
    chosen = select_confident(logits, keep)
    discarded = [i for i in range(len(logits)) if i not in chosen]
    assert entropy(logits[chosen]).max() <= entropy(logits[discarded]).min()


# ---- REINFORCE ----


def test_the_policy_gradient_is_the_mean_of_advantage_times_negative_log_likelihood():
    log_likelihood = log(0.25, 0.75)
    loss = policy_gradient(log_likelihood, torch.tensor([[2.0, -1.0]]))
    assert loss.item() == pytest.approx((2 * math.log(4) - math.log(4 / 3)) / 2)


def test_the_policy_gradient_averages_over_views_and_answers():
    log_likelihood = torch.tensor([[0.25, 0.75], [0.75, 0.25]]).log()
    loss = policy_gradient(log_likelihood, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert loss.item() == pytest.approx(2 * math.log(4) / 4)


@given(logits_of(2, 4), st.floats(-3, 3))
def test_the_policy_gradient_is_linear_in_the_advantages(logits, factor):
    log_likelihood, advantage = logits.log_softmax(-1)[:, :2], torch.tensor([[0.5, -0.5], [1.0, 0.25]])
    scaled = policy_gradient(log_likelihood, factor * advantage)
    torch.testing.assert_close(scaled, factor * policy_gradient(log_likelihood, advantage), atol=1e-5, rtol=1e-5)


def test_the_policy_gradient_of_several_samples_is_that_of_each():
    log_likelihood, advantage = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    advantage[1, 2, 0] = LEFT_OUT
    each = [policy_gradient(*pair) for pair in zip(log_likelihood, advantage, strict=True)]
    torch.testing.assert_close(policy_gradient(log_likelihood, advantage), torch.stack(each))


def test_a_step_against_the_gradient_favours_the_answer_with_the_positive_advantage():
    logits = torch.zeros(1, 3, requires_grad=True)
    log_likelihood = logits.log_softmax(-1)[:, [2, 0]]
    policy_gradient(log_likelihood, torch.tensor([[1.0, -1.0]])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.5, 0.0, -0.5]]))


def scores_of(answers):
    """A reward of each of five classes."""
    return torch.tensor([0.3, 0.9, 0.1, 0.5, 0.7])[answers]


@pytest.mark.parametrize("settings", [{}, {"baseline": "all"}, {"baseline": "none"}, {"divide_by_std": True}])
def test_reinforce_scores_the_likeliest_answers_and_takes_their_policy_gradient(settings):
    logits = torch.randn(4, 5)
    step = reinforce(logits, scores_of, 3, **settings)
    assert torch.equal(step.answers, logits.argsort(dim=-1, descending=True)[:, :3])
    assert torch.equal(step.rewards, scores_of(step.answers))
    assert torch.equal(step.advantages, advantages(step.rewards, **settings))
    log_likelihood = logits.log_softmax(-1).gather(-1, step.answers)
    assert torch.equal(step.loss, policy_gradient(log_likelihood, step.advantages))


def test_reinforce_of_several_samples_is_that_of_each():
    logits = torch.randn(3, 4, 5)
    together, each = reinforce(logits, scores_of, 2), [reinforce(one, scores_of, 2) for one in logits]
    torch.testing.assert_close(together.loss, torch.stack([step.loss for step in each]))
    assert torch.equal(together.answers, torch.stack([step.answers for step in each]))


@pytest.mark.parametrize("settings", [{}, {"baseline": "all"}, {"baseline": "none"}, {"divide_by_std": True}])
def test_an_answer_that_is_left_out_counts_as_if_it_had_not_been_sampled(settings):
    """The least likely of three sampled answers has no score: loss and gradient are those of two answers."""

    def without_the_last(answers):
        scores = scores_of(answers)
        scores[:, 2:] = LEFT_OUT
        return scores

    logits = torch.randn(4, 5, requires_grad=True)
    losses = [reinforce(logits, without_the_last, 3, **settings).loss, reinforce(logits, scores_of, 2, **settings).loss]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in losses))


@pytest.mark.parametrize("settings", [{}, {"baseline": "all"}, {"baseline": "none"}, {"divide_by_std": True}])
def test_when_every_answer_is_left_out_there_is_nothing_to_learn(settings):
    logits = torch.randn(4, 5, requires_grad=True)
    step = reinforce(logits, lambda answers: torch.full(answers.shape, LEFT_OUT), 3, **settings)
    assert step.loss.item() == 0.0 and bool((step.advantages == LEFT_OUT).all())
    assert torch.equal(torch.autograd.grad(step.loss, logits)[0], torch.zeros(4, 5))


# ---- TPT ----


def test_marginal_entropy_of_two_certain_views_that_disagree_is_one_bit():
    logits = torch.tensor([[1000.0, 0.0, 0.0], [0.0, 1000.0, 0.0]])
    assert marginal_entropy(logits).item() == pytest.approx(LOG_2)


def test_marginal_entropy_averages_probabilities_not_logits():
    logits = torch.cat([log(0.9, 0.1), log(0.3, 0.7)])
    expected = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    assert marginal_entropy(logits).item() == pytest.approx(expected)


@given(logits_of(1, 5), st.integers(1, 6))
def test_marginal_entropy_of_equal_views_is_the_entropy_of_one(logits, count):
    torch.testing.assert_close(
        marginal_entropy(logits.repeat(count, 1)), entropy(logits).squeeze(), atol=1e-5, rtol=1e-4
    )


@given(logits_of(4, 5), st.permutations(range(4)))
def test_marginal_entropy_is_blind_to_the_order_of_the_views(logits, order):
    torch.testing.assert_close(marginal_entropy(logits[order]), marginal_entropy(logits), atol=1e-5, rtol=1e-4)


@given(logits_of(4, 5))
def test_marginal_entropy_lies_between_the_mean_entropy_and_log_of_the_classes(logits):
    value = marginal_entropy(logits).item()
    assert entropy(logits).mean().item() - 1e-5 <= value <= math.log(5) + 1e-5


def test_marginal_entropy_and_its_gradient_stay_finite_for_extreme_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, 0.0, -1e4]], requires_grad=True)
    value = marginal_entropy(logits)
    value.backward()
    assert value.item() == 0.0 and bool(torch.isfinite(logits.grad).all())


# ---- distillation ----


def test_kd_is_the_cross_entropy_with_the_teacher():
    expected = -(0.5 * math.log(0.25) + 0.5 * math.log(0.75))
    assert kd(log(0.25, 0.75), log(0.5, 0.5)).item() == pytest.approx(expected)


@given(logits_of(3, 4), logits_of(3, 4))
def test_kd_is_least_when_the_student_is_the_teacher(student, teacher):
    assert kd(student, teacher) >= kd(teacher, teacher) - 1e-5
    torch.testing.assert_close(kd(teacher, teacher), entropy(teacher).mean(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("loss", [kd, dkd, atkd])
def test_distillation_has_no_gradient_when_the_student_is_the_teacher(loss):
    teacher = torch.randn(3, 5)
    student = teacher.clone().requires_grad_()
    loss(student, teacher).backward()
    torch.testing.assert_close(student.grad, torch.zeros(3, 5), atol=1e-6, rtol=0)


@pytest.mark.parametrize("loss", [kd, dkd, atkd])
def test_distillation_averages_over_views(loss):
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    rows = [loss(student[i : i + 1], teacher[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(student, teacher), torch.stack(rows).mean())


@given(logits_of(2, 4), logits_of(2, 4), st.floats(0, 3), st.floats(0, 3))
def test_dkd_is_never_negative_and_zero_at_the_teacher(student, teacher, alpha, beta):
    assert dkd(student, teacher, alpha, beta) >= -1e-5
    assert dkd(teacher, teacher, alpha, beta).item() == pytest.approx(0, abs=1e-5)


@given(logits_of(3, 2), logits_of(3, 2), st.floats(0, 3))
def test_dkd_of_two_classes_is_alpha_times_the_whole_divergence(student, teacher, alpha):
    expected = alpha * relative_entropy(student, teacher)
    torch.testing.assert_close(dkd(student, teacher, alpha, beta=7.0), expected, atol=1e-5, rtol=1e-4)


@given(logits_of(1, 5), logits_of(1, 5))
def test_dkd_with_the_teachers_doubt_as_beta_is_the_whole_divergence(student, teacher):
    doubt = 1 - teacher.softmax(dim=-1).max().item()
    expected = relative_entropy(student, teacher)
    torch.testing.assert_close(dkd(student, teacher, 1.0, doubt), expected, atol=1e-5, rtol=1e-3)


def test_beta_of_dkd_weighs_only_the_classes_that_are_not_the_target():
    student, teacher = log(0.5, 0.4, 0.1), log(0.5, 0.25, 0.25)
    nckd = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert dkd(student, teacher, alpha=9.0, beta=2.0).item() == pytest.approx(2 * nckd)


def test_atkd_by_hand_with_the_mean_as_scale():
    student, teacher = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    assert atkd(student, teacher, scale="mean").item() == pytest.approx(4 * 2 * math.tanh(1), rel=1e-4)


def test_atkd_by_hand_with_the_standard_deviation_as_scale():
    student, teacher = torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 3.0]])
    assert atkd(student, teacher).item() == pytest.approx(4 * math.tanh(2), rel=1e-4)


def test_atkd_does_not_see_the_teachers_temperature():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    torch.testing.assert_close(atkd(student, 10 * teacher), atkd(student, teacher), atol=1e-3, rtol=1e-3)


def test_atkd_grows_with_the_square_of_the_students_scale():
    student, teacher = torch.randn(3, 5), torch.randn(3, 5)
    torch.testing.assert_close(atkd(4 * student, teacher), 16 * atkd(student, teacher), atol=1e-3, rtol=1e-3)


def test_the_scales_of_atkd_are_constants():
    student = torch.tensor([[3.0, 1.0]], requires_grad=True)
    atkd(student, torch.tensor([[1.0, 3.0]])).backward()
    gap = 2 * (torch.tensor([[6.0, 2.0]]).softmax(-1) - torch.tensor([[2.0, 6.0]]).softmax(-1))
    torch.testing.assert_close(student.grad, gap, atol=1e-4, rtol=1e-4)
