import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rlcf.adapt.rewards import advantages, clip_score, ensemble_weights, weighted_mean

SCORES = st.lists(st.lists(st.floats(0, 2.5, width=32), min_size=3, max_size=3), min_size=1, max_size=4).map(
    torch.tensor
)
POSITIVE = st.lists(st.floats(0.1, 100), min_size=1, max_size=6)


def test_clip_score_is_two_and_a_half_times_the_cosine():
    assert clip_score(torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6])).item() == pytest.approx(2.5 * 0.96)


def test_clip_score_of_an_opposite_text_is_zero():
    assert clip_score(torch.tensor([0.6, 0.8]), torch.tensor([-0.6, -0.8])).item() == 0.0


def test_clip_score_weight_scales_it():
    assert clip_score(torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6]), weight=10.0).item() == pytest.approx(9.6)


def test_clip_score_of_views_against_their_sampled_answers_broadcasts():
    views, texts = F.normalize(torch.randn(4, 1, 8), dim=-1), F.normalize(torch.randn(4, 3, 8), dim=-1)
    scores = clip_score(views, texts)
    assert scores.shape == (4, 3)
    assert scores[2, 1].item() == pytest.approx(max(0, 2.5 * float(views[2, 0] @ texts[2, 1])), abs=1e-6)


def test_weighted_mean_adds_weight_times_score():
    scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])]
    torch.testing.assert_close(weighted_mean(scores, [0.75, 0.25]), torch.tensor([[1.5, 2.75]]))


def test_weighted_mean_does_not_normalise():
    torch.testing.assert_close(weighted_mean([torch.ones(2)], [1.01]), torch.tensor([1.01, 1.01]))


def test_weighted_mean_refuses_another_number_of_weights_than_models():
    with pytest.raises(ValueError):
        weighted_mean([torch.ones(2), torch.ones(2)], [1.0])


@given(POSITIVE)
def test_ensemble_weights_sum_to_one(weights):
    assert sum(ensemble_weights(weights)) == pytest.approx(1)


@given(POSITIVE, st.floats(0.01, 100))
def test_ensemble_weights_depend_on_the_ratio_alone(weights, factor):
    assert ensemble_weights([factor * w for w in weights]) == pytest.approx(ensemble_weights(weights))


def test_rounded_ensemble_weights_are_the_published_ones():
    assert ensemble_weights([10, 3, 5], rounded=True) == [0.56, 0.17, 0.28]
    assert ensemble_weights([10, 3, 5]) == pytest.approx([10 / 18, 3 / 18, 5 / 18])


@given(SCORES)
def test_advantages_over_answers_sum_to_zero_for_every_view(scores):
    torch.testing.assert_close(advantages(scores).sum(dim=-1), torch.zeros(len(scores)), atol=1e-5, rtol=0)


@given(SCORES, st.floats(-2, 2), st.sampled_from(["answers", "all"]))
def test_shifting_all_scores_leaves_advantages(scores, shift, baseline):
    torch.testing.assert_close(advantages(scores + shift, baseline), advantages(scores, baseline), atol=1e-5, rtol=1e-5)


@given(SCORES)
def test_advantages_keep_the_ranking_of_the_scores(scores):
    order = scores.argsort(dim=-1)
    assert bool((advantages(scores).gather(-1, order).diff(dim=-1) >= 0).all())


def test_baseline_over_answers_differs_from_baseline_over_all():
    scores = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert advantages(scores, "answers").tolist() == [[-1, 1], [-1, 1]]
    assert advantages(scores, "all").tolist() == [[-3, -1], [1, 3]]


def test_no_baseline_means_the_scores_themselves():
    scores = torch.tensor([[1.0, 3.0]])
    assert advantages(scores, "none").tolist() == [[1.0, 3.0]]


def test_a_single_answer_is_its_own_advantage():
    scores = torch.tensor([[0.7], [0.9]])
    assert torch.equal(advantages(scores, "answers", divide_by_std=True), scores)


def test_a_single_answer_for_each_of_two_views_has_a_baseline_over_all():
    torch.testing.assert_close(advantages(torch.tensor([[0.7], [0.9]]), "all"), torch.tensor([[-0.1], [0.1]]))
    assert advantages(torch.tensor([[0.7]]), "all").item() == pytest.approx(0.7)


def test_division_by_the_unbiased_standard_deviation():
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 8.0]])
    expected = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
    torch.testing.assert_close(advantages(scores, divide_by_std=True), expected, atol=2e-5, rtol=0)


def test_division_by_the_standard_deviation_over_all_answers():
    scores = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    result = advantages(scores, "all", divide_by_std=True)
    assert result.std().item() == pytest.approx(1, abs=1e-4) and result.mean().item() == pytest.approx(0, abs=1e-6)


def test_equal_scores_have_zero_advantage_even_when_divided():
    assert advantages(torch.full((2, 3), 0.5), divide_by_std=True).tolist() == [[0, 0, 0], [0, 0, 0]]
