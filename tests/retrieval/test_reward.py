import pytest
import torch
import torch.nn.functional as F

from retrieval.config import RetrievalConfig
from retrieval.objectives import OBJECTIVES
from retrieval.reward import Query, Rewards
from rlcf.adapt.rewards import LEFT_OUT, RewardFunction
from rlcf.errors import UserError


@torch.no_grad()
def test_rewards_of_an_ensemble_are_the_weighted_scores_of_its_models(demo_clip):
    clips = [demo_clip("demo-student"), demo_clip("demo-reward")]
    query = [F.normalize(torch.randn(8), dim=-1) for _ in clips]
    gallery = [F.normalize(torch.randn(5, 8), dim=-1) for _ in clips]
    rewards = Rewards(clips, dict(enumerate(gallery)), [0.75, 0.25], clipscore_weight=2.0)
    seen, answers = rewards.see(Query("a text", dict(enumerate(query)))), torch.tensor([[[4, 0]]])
    cosines = [query[m] @ gallery[m].T for m in (0, 1)]
    expected = sum(w * 2.0 * cosine.clamp(min=0) for w, cosine in zip((0.75, 0.25), cosines, strict=True))
    assert torch.allclose(seen.scores(answers), expected[answers])
    teacher = sum(w * c.logit_scale * cosine for w, c, cosine in zip((0.75, 0.25), clips, cosines, strict=True))
    assert torch.allclose(seen.teacher_logits, teacher[None, None], atol=1e-4)


def test_a_function_beside_a_clip_is_asked_about_the_image_and_the_sampled_texts(demo_clip):
    asked = []

    def length(images, texts):
        asked.extend(zip(images, texts, strict=True))
        return [len(text) for text in texts]

    clip, texts = demo_clip(), ["ab", "abc", "abcd"]
    gallery, query = F.normalize(torch.randn(3, 8), dim=-1), F.normalize(torch.randn(8), dim=-1)
    rewards = Rewards([RewardFunction(length), clip], {1: gallery}, [0.5, 0.5], texts)
    view = torch.randint(256, (1, 3, 16, 12), dtype=torch.uint8)
    scores = rewards.see(Query(view, {1: query})).scores(torch.tensor([[[2, 0]]]))
    cosine = (gallery @ query).clamp(min=0)
    assert torch.allclose(scores, (0.5 * torch.tensor([4.0, 2.0]) + 0.5 * 2.5 * cosine[[2, 0]]).view(1, 1, 2))
    assert [text for _, text in asked] == ["abcd", "ab"] and asked[0][0] is asked[1][0]
    assert asked[0][0].size == (12, 16)


def test_an_answer_that_is_left_out_counts_as_if_it_had_not_been_sampled():
    logits = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    texts, view = ["a", "bb", "ccc", "dddd"], torch.zeros(1, 3, 4, 4, dtype=torch.uint8)

    def loss(logits, texts, k):
        function = RewardFunction(lambda images, texts: [None if text == "bb" else len(text) for text in texts])
        seen = Rewards([function], {}, [1.0], texts).see(Query(view, {}))
        return OBJECTIVES["rlcf"](RetrievalConfig(sample_k=k), logits, seen)

    step = loss(logits, texts, k=3)
    assert step.rewards[0, 0, 1] == LEFT_OUT and step.advantages[0, 0, 1] == LEFT_OUT
    rewards, log_likelihood = torch.tensor([1.0, 3.0]), logits.log_softmax(dim=-1)[0, 0, [0, 2]]
    expected = ((rewards - rewards.mean()) * -log_likelihood).mean()
    assert torch.allclose(step.loss, expected.view(1))


def test_a_function_has_no_logits_to_distil():
    seen = Rewards([RewardFunction(len, "the reward")], {}, [1.0], ["a"]).see(Query(torch.zeros(1, 3, 4, 4), {}))
    with pytest.raises(UserError, match="the reward gives scores, not logits to distil"):
        _ = seen.teacher_logits
