"""The trace of an episode: a sample's part of the steps, and its form in a record."""

import json
import math

import torch

from rlcf.adapt.objectives import Step
from rlcf.adapt.rewards import LEFT_OUT, weighted_mean
from rlcf.adapt.trace import Outcome, traced


def test_a_sample_gets_its_own_part_of_a_step():
    step = Step(
        loss=torch.tensor([1.0, 2.0]),
        answers=torch.tensor([[[0, 1]], [[2, 3]]]),
        rewards=torch.tensor([[[0.5, 0.25]], [[LEFT_OUT, 1.0]]]),
        advantages=torch.tensor([[[0.125, -0.125]], [[LEFT_OUT, 0.0]]]),
    )
    (second,) = traced([step], 1, [0])
    assert (second.loss, second.views, second.answers) == (2.0, [0], [[2, 3]])
    assert (second.rewards, second.advantages) == ([[None, 1.0]], [[None, 0.0]])


def test_a_record_of_a_step_is_strict_json():
    step = Step(loss=torch.tensor([math.nan]), rewards=torch.tensor([[[math.inf, 1.0]]]))
    record = traced([step], 0)[0].as_record()
    assert json.loads(json.dumps(record, allow_nan=False)) == {"loss": None, "rewards": [[None, 1.0]]}


def test_an_episode_that_was_given_up_answers_as_before():
    before, after = torch.tensor([1.0]), torch.tensor([2.0])
    assert Outcome(before, None, []).answer is before and Outcome(before, after, []).answer is after


def test_a_model_of_weight_zero_leaves_no_answer_out():
    scores = [torch.tensor([1.0, 2.0]), torch.tensor([LEFT_OUT, 5.0])]
    assert weighted_mean(scores, [1.0, 0.0]).tolist() == [1.0, 2.0]
