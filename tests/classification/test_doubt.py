"""When it is told that labels and folders probably do not match."""

import numpy as np
import pytest

from classification.doubt import labels_doubtful


def doubted(labels, answers, confidence):
    return labels_doubtful(np.asarray(labels), np.asarray(answers), np.broadcast_to(confidence, len(labels)))


LABELS = np.arange(120) % 12
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "answers",
    [(LABELS + 1) % 12, 11 - LABELS, RNG.permutation(LABELS), np.where(LABELS < 2, LABELS, 2 + (LABELS - 1) % 10)],
    ids=["shifted", "reversed", "shuffled", "as numbers sort"],
)
def test_confident_answers_that_are_right_by_chance_alone_are_doubtful(answers):
    said = doubted(LABELS, answers, 0.9)
    assert "90% confident" in said and "labels and folders probably do not match" in said


def test_two_classes_the_wrong_way_round_are_doubtful():
    labels = np.arange(30) % 2
    assert doubted(labels, 1 - labels, 0.9)


def test_good_answers_are_not_doubtful():
    answers = np.where(RNG.random(120) < 0.4, LABELS, RNG.integers(0, 12, 120))
    assert not doubted(LABELS, answers, 0.9)


def test_answers_that_know_nothing_and_say_so_are_not_doubtful():
    assert not doubted(LABELS, RNG.permutation(LABELS), 0.2)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_few_samples_are_never_doubtful(count):
    assert not doubted(LABELS[:count], LABELS[:count] + 1, 0.99)


def test_a_few_wrong_answers_of_few_classes_are_not_doubtful():
    labels = np.arange(12) % 3
    answers = np.where(np.arange(12) < 6, labels, (labels + 1) % 3)
    assert not doubted(labels, answers, 0.9)


def test_a_student_that_always_gives_one_class_is_judged_by_that_class():
    """Half of the images are of class 0, which is all it ever says: right for half of them, and that is chance."""
    labels = np.where(np.arange(100) < 50, 0, 1 + np.arange(100) % 4)
    assert doubted(labels, np.zeros(100, int), 0.99)
