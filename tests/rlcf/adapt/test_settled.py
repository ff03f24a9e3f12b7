"""When a sample has settled, and that one which has is held while the others go on."""

import torch

from rlcf.adapt.objectives import Step
from rlcf.adapt.rewards import LEFT_OUT
from rlcf.adapt.settled import Settling


def step(answers, advantages):
    """answers: (N, V, K); advantages: K that each view of each sample has."""
    answers = torch.tensor(answers)
    return Step(torch.zeros(len(answers)), answers, None, torch.tensor(advantages).expand(answers.shape))


def taken(steps, bound=0.5, longest=9):
    """Number of steps after which a sample of one view ends, or None. steps: likeliest, answers, advantages of each."""
    settling = Settling(bound, longest, own=lambda sample: [])
    for number, (likeliest, answers, advantages) in enumerate(steps, start=1):
        settling.see(torch.tensor([[likeliest]]), step([[answers]], advantages))
        if settling.over():
            assert settling.after == [number]
            return number
    return None


SMALL, LARGE = [0.4, -0.4], [0.5, -0.1]


def test_a_sample_settles_when_its_answers_repeat_and_no_advantage_reaches_the_bound():
    assert taken([(1, [1, 2], SMALL)] * 2) == 2
    assert taken([(1, [1, 3], SMALL), (1, [1, 2], SMALL), (1, [1, 2], SMALL)]) == 3
    assert taken([(1, [1, 2], LARGE)] * 4) is None
    assert taken([(1, [1, 2], SMALL), (1, [1, 3], SMALL)] * 2) is None


def test_the_order_of_the_sampled_answers_is_none_but_the_likeliest_counts():
    assert taken([(1, [1, 2], SMALL), (1, [2, 1], SMALL)]) == 2
    assert taken([(1, [1, 2], SMALL), (2, [1, 2], SMALL)]) is None


def test_an_answer_that_is_left_out_has_no_advantage():
    assert taken([(1, [1, 1], [0.4, LEFT_OUT])] * 2) == 2


def test_the_last_step_ends_nothing_early_and_a_bound_of_nothing_watches_nothing():
    assert taken([(1, [1, 2], SMALL)] * 2, longest=2) is None
    assert taken([(1, [1, 2], SMALL)] * 4, bound=0.0) is None


def test_every_view_has_to_repeat():
    settling = Settling(0.5, 9, own=lambda sample: [])
    for answers in ([[[1, 2], [3, 4]]], [[[1, 2], [3, 5]]], [[[1, 2], [3, 5]]]):
        settling.see(torch.tensor([[1, 3]]), step(answers, SMALL))
        over = settling.over()
    assert over and settling.after == [3]


def test_a_sample_that_has_settled_gets_back_what_it_was_when_it_did():
    rows = torch.zeros(3, 2)
    settling = Settling(0.5, 9, own=lambda sample: [rows[sample]], idle=[False, False, True])
    likeliest = torch.tensor([[1], [1], [1]])
    for number, second in enumerate((2, 3, 4, 4), start=1):
        settling.see(likeliest, step([[[1, 2]], [[1, second]], [[1, number]]], SMALL))
        rows += 1.0
        assert settling.over() == (number == 4)
    assert settling.after == [2, 4, 0]  # the idle one is not waited for
    settling.put_back()
    assert rows.tolist() == [[2.0, 2.0], [4.0, 4.0], [4.0, 4.0]]
