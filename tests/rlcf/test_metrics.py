import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcf.metrics import (
    best_rank,
    calibration_error,
    holm,
    paired_bootstrap,
    paired_p_value,
    recall_at_k,
    share_interval,
    top_indices,
)

BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=2, max_size=60)


def test_calibration_error_by_hand():
    assert calibration_error([0.9, 0.9, 0.6, 0.6], [1, 0, 1, 1], bins=10) == pytest.approx(40.0)


def test_calibration_error_weighs_bins_by_their_samples():
    assert calibration_error([0.9, 0.9, 0.9, 0.3], [1, 1, 1, 1], bins=10) == pytest.approx((3 * 10 + 70) / 4)


def test_over_and_underconfidence_cancel_within_a_bin_only():
    assert calibration_error([0.5, 0.5], [1, 0]) == pytest.approx(0)
    assert calibration_error([0.2, 0.8], [1, 0]) == pytest.approx(80)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    assert calibration_error([0.5, 0.6], [1, 0], bins=2) == pytest.approx(55)


def test_confidences_zero_and_one_have_a_bin():
    assert calibration_error([0.0, 1.0], [0, 1]) == 0.0
    assert calibration_error([0.0, 1.0], [1, 0]) == 100.0


@given(st.lists(st.integers(1, 15), min_size=1, max_size=8))
def test_calibration_error_of_a_calibrated_model_is_zero(hits):
    confidence = [k / 15 for k in hits for _ in range(15)]
    correct = [i < k for k in hits for i in range(15)]
    assert calibration_error(confidence, correct) == pytest.approx(0, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_calibration_error_lies_between_the_total_gap_and_100_in_any_order(samples):
    confidence, correct = zip(*samples, strict=True)
    value = calibration_error(confidence, correct)
    assert 100 * abs(np.mean(confidence) - np.mean(correct)) - 1e-6 <= value <= 100 + 1e-6
    assert calibration_error(confidence[::-1], correct[::-1]) == pytest.approx(value)


SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=30)


def by_hand(scores):
    """Best first, equal scores by their index."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))


@given(SCORES, st.data())
def test_the_best_rank_is_the_first_right_place_of_the_sorted_gallery(scores, data):
    targets = data.draw(st.lists(st.integers(0, len(scores) - 1), min_size=1, max_size=4))
    assert best_rank(scores, targets) == 1 + min(by_hand(scores).index(target) for target in targets)


@given(SCORES, st.integers(1, 40))
def test_top_indices_are_the_first_of_the_sorted_gallery(scores, k):
    assert top_indices(np.float32(scores), k) == by_hand(scores)[:k]


def test_recall_counts_queries_whose_rank_is_at_most_k():
    assert [recall_at_k([1, 3, 2, 11], k) for k in (1, 2, 3, 10)] == [25.0, 50.0, 75.0, 75.0]


def test_the_bootstraps_mean_is_after_minus_before():
    assert paired_bootstrap([0, 100, 0, 0], [100, 100, 0, 100])[0] == 50.0


@given(BINARY)
def test_the_bootstrap_interval_contains_the_mean(pairs):
    before, after = np.array(pairs).T
    mean, low, high = paired_bootstrap(before, after, resamples=500)
    assert low - 1e-9 <= mean <= high + 1e-9


@given(BINARY, st.integers(-5, 5))
def test_the_bootstrap_sees_the_paired_difference_alone(pairs, shift):
    before, after = np.array(pairs).T
    shifts = shift * np.arange(len(pairs))
    result = paired_bootstrap(before + shifts, after + shifts, resamples=50)
    assert result == paired_bootstrap(before, after, resamples=50)


def test_the_bootstrap_is_seeded():
    before, after = np.zeros(40), np.arange(40.0)
    first, again, other = (paired_bootstrap(before, after, 200, seed) for seed in (1, 1, 2))
    assert first == again and first[1:] != other[1:]


def test_a_constant_gain_has_an_interval_of_no_width():
    assert paired_bootstrap([1, 2, 3, 4], [3, 4, 5, 6]) == (2.0, 2.0, 2.0)


def test_the_bootstrap_interval_is_the_normal_one_for_many_samples():
    difference = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=2000)
    mean, low, high = paired_bootstrap(np.zeros(2000), difference)
    half = 1.96 * difference.std() / np.sqrt(2000)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.1 * half)


@given(BINARY)
def test_groups_of_one_sample_change_nothing(pairs):
    before, after = np.array(pairs).T
    groups = 7 * np.arange(len(pairs))[::-1]
    assert paired_bootstrap(before, after, 200, groups=groups) == paired_bootstrap(before[::-1], after[::-1], 200)


def test_samples_that_are_copies_of_each_other_count_once():
    difference = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=200)
    once = paired_bootstrap(np.zeros(200), difference)
    groups = np.arange(200).repeat(5)
    assert paired_bootstrap(np.zeros(1000), difference.repeat(5), groups=groups) == pytest.approx(once)
    mean, low, high = paired_bootstrap(np.zeros(1000), difference.repeat(5))
    assert mean == pytest.approx(once[0]) and high - low < 0.6 * (once[2] - once[1])


def test_a_large_group_weighs_by_its_samples():
    mean, low, high = paired_bootstrap([0, 0, 0, 0], [1, 1, 1, 0], groups=[4, 4, 4, 9])
    assert (mean, low, high) == (0.75, 0.0, 1.0)


def test_a_share_of_all_still_has_a_width():
    low, high = share_interval(100, 100)
    assert low == pytest.approx(96.30, abs=0.01) and high == 100.0
    assert share_interval(0, 100)[1] == pytest.approx(100 - 96.30, abs=0.01)


def test_a_share_interval_is_wilsons():
    """Of 15 of 50 it is 19.1 to 43.8 (Newcombe, Statistics in Medicine 1998, has such)."""
    assert share_interval(15, 50) == pytest.approx((19.10, 43.75), abs=0.01)


def test_the_p_value_of_answers_is_mcnemars():
    """9 fixed and 1 spoilt: exactly 2 * (C(10,0) + C(10,1)) / 2^10."""
    before, after = [0] * 9 + [1] + [1] * 20, [1] * 9 + [0] + [1] * 20
    assert paired_p_value(before, after, resamples=100_000) == pytest.approx(22 / 1024, abs=0.002)


def test_no_difference_has_p_1_and_a_large_one_is_bounded_by_the_draws():
    assert paired_p_value([0, 1], [0, 1]) == 1.0
    assert paired_p_value([0] * 40, [1] * 40, resamples=999) == pytest.approx(1 / 1000)


def test_samples_of_a_group_are_one_of_a_p_value():
    assert paired_p_value([0] * 40, [1] * 40, groups=[0] * 20 + [1] * 20) == pytest.approx(0.5, abs=0.02)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_p_values_are_no_smaller_and_keep_their_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


def test_a_bootstrap_in_blocks_is_that_in_one():
    """5,000 values that differ: the draws are made in blocks, for the memory."""
    generator = np.random.default_rng(1)
    before, after = generator.random(5000), generator.random(5000)
    mean, low, high = paired_bootstrap(before, after, resamples=2000)
    difference = np.unique(after - before)
    draws = np.random.default_rng(0).multinomial(5000, np.full(5000, 1 / 5000), size=2000)
    expected = np.percentile(draws @ difference / 5000, [2.5, 97.5])
    assert (low, high) == pytest.approx(tuple(expected)) and low < mean < high
