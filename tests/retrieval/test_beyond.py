"""Options beyond the paper: both models' candidates, the starting ranking as an anchor, the gate, the product."""

import pytest
import torch

from retrieval import Retriever
from retrieval.config import RetrievalConfig
from rlcf.adapt.objectives import kl_divergence
from rlcf.adapt.rewards import RewardFunction
from rlcf.errors import UserError

TEXTS = ["a dog above a cat", "a key below a car", "an owl to the left of a house", "a pig above a bee", "a fish"]
MODELS = {"student": "demo-student", "reward": ["demo-reward"], "device": "cpu"}


@pytest.fixture
def picture():
    return torch.randint(256, (3, 64, 64), dtype=torch.uint8)


@pytest.fixture
def rank(picture):
    """The answer about a picture, with settings."""
    return lambda **settings: Retriever(texts=TEXTS, **MODELS | {"sample_k": 2, "lr": 1e-3} | settings)(picture)


@pytest.fixture
def reward_ranking(picture):
    return Retriever(texts=TEXTS, student="demo-reward", method="zeroshot", device="cpu")(picture)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_the_reward_models_best_are_sampled_too_each_once(retrieve, direction):
    results = retrieve("--candidates", "both", "--direction", direction, "--sample-k", 3)
    alone = retrieve("--method", "zeroshot", "--student", "demo-reward", "--direction", direction, output="alone")
    for record, reward in zip(results.records(), alone.records(), strict=True):
        (step,) = record["steps"]
        (answers,), (rewards,) = step["answers"], step["rewards"]
        assert answers[:3] == record["zero_shot_top10"][:3] and answers[3:] == reward["zero_shot_top10"][:3]
        assert [score is None for score in rewards[3:]] == [answer in answers[:3] for answer in answers[3:]]


def test_the_anchor_holds_the_ranking_near_its_start(rank):
    def moved(answer):
        return kl_divergence(answer.adapted.log()[None], answer.zero_shot.log()[None]).item()

    assert moved(rank(kl_weight=100.0, steps=5)) < 0.5 * moved(rank(steps=5))


def test_the_product_and_the_mean_are_those_of_both_models_probabilities(rank, reward_ranking):
    adapted = rank(lr=1e-12)
    expected = adapted.adapted * reward_ranking.zero_shot
    torch.testing.assert_close(rank(lr=1e-12, answer="product").adapted, expected / expected.sum(), atol=1e-5, rtol=0)
    expected = (adapted.adapted + reward_ranking.zero_shot) / 2
    torch.testing.assert_close(rank(lr=1e-12, answer="mean").adapted, expected, atol=1e-5, rtol=0)


def test_the_ensemble_is_the_product_without_an_episode(rank, reward_ranking):
    answer = rank(method="ensemble")
    expected = answer.zero_shot * reward_ranking.zero_shot
    torch.testing.assert_close(answer.adapted, expected / expected.sum(), atol=1e-5, rtol=0)
    assert answer.trace == []


def test_the_gate_leaves_out_the_episodes_of_queries_that_both_models_agree_on(retrieve):
    gated, plain = retrieve("--gate", "agree", output="gated"), retrieve(output="plain")
    for direction in ("i2t", "t2i"):
        name = f"json-blur-{direction}"
        records, others = gated.records(name), plain.records(name)
        left_out = [record for record in records if record.get("gated")]
        assert 0 < len(left_out) < len(records)
        for record, other in zip(records, others, strict=True):
            assert record["steps"] == ([] if record.get("gated") else other["steps"])
        assert all(record["adapted_top10"] == record["zero_shot_top10"] for record in left_out)
        assert gated.metrics[f"json:blur-{direction}"]["gated"] == len(left_out)


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_a_query_that_has_settled_ends_early_with_the_ranking_of_as_many_steps(retrieve, direction):
    flags = ["--direction", direction, "--limit", 4, "--lr", 1e-5]
    settled = retrieve(*flags, "--steps", 4, "--stop-when-settled", 2.5)
    two = retrieve(*flags, "--steps", 2, output="two")
    for record, other in zip(settled.records(), two.records(), strict=True):
        assert record["steps_taken"] == len(record["steps"]) and record["settled"] == (record["steps_taken"] < 4)
        if record["steps_taken"] == 2:
            for key in ("steps", "adapted_top10", "adapted_confidence"):
                assert record[key] == other[key]
    assert {record["steps_taken"] for record in settled.records()} >= {2}
    (summary,) = settled.metrics.values()
    assert summary["settled"] == sum(record["settled"] for record in settled.records()) and summary["mean_steps"] < 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "kd", "candidates": "both"}, "--candidates is for --method rlcf"),
        ({"method": "kd", "stop_when_settled": 0.1}, "--stop-when-settled is for --method rlcf"),
        ({"method": "zeroshot", "gate": "agree"}, "--gate is for --method rlcf or kd"),
        ({"method": "zeroshot", "answer": "product"}, "--answer is for --method rlcf or kd"),
        ({"reward": ["py:a:b"], "gate": "agree"}, "--reward py:a:b gives scores, not logits"),
    ],
)
def test_settings_that_a_method_does_not_have_are_refused(settings, message):
    with pytest.raises(UserError) as error:
        RetrievalConfig(**settings).check()
    assert str(error.value).startswith(message)


def test_a_function_has_no_ranking_to_agree_with(picture):
    with pytest.raises(UserError, match="gives scores, not logits"):
        Retriever(texts=TEXTS, student="demo-student", reward=[RewardFunction(len).function], gate="agree")
