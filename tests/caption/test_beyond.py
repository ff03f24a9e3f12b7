"""Options beyond the paper: the first step's captions stay among the candidates, and an anchor to the start."""

import pytest
import torch

from caption.config import CaptionConfig
from caption.metrics import describe
from caption.objectives import Sampled, masked_mean, rlcf
from rlcf.adapt.objectives import kl_estimate
from rlcf.errors import UserError


class Scores:
    """A reward model that knows its scores. scores: (N, K)."""

    def __init__(self, *scores):
        self.known = torch.tensor(scores)

    def scores(self, texts):
        return self.known


def test_the_captions_of_the_first_step_join_those_of_the_later_ones(make_captioner, view):
    (answer,) = make_captioner(candidates="both", steps=3, lr=3e-2).adapt([(0, view)])
    first, *later = (step.answers[0] for step in answer.trace)
    assert len(first) == 3
    for step, answers in zip(answer.trace[1:], later, strict=True):
        assert answers[3:] == first
        joined = [reward is None for reward in step.rewards[0][3:]]
        assert joined == [caption in answers[:3] for caption in first]
    assert any(set(answers[:3]) != set(first) for answers in later)  # else the test would tell nothing


def test_a_caption_that_stands_twice_counts_once():
    now = torch.tensor([[[-1.0, -2.0], [-3.0, -1.0], [-1.0, -2.0]]], requires_grad=True)
    tokens, repeated = torch.ones(1, 3, 2), torch.tensor([[False, False, True]])
    step = rlcf(CaptionConfig(), Sampled([["a", "b", "a"]], now, tokens, repeated), Scores([0.4, 0.2, 0.4]))
    likelihoods, advantages = torch.tensor([-1.5, -2.0]), torch.tensor([0.1, -0.1])
    torch.testing.assert_close(step.loss, -(likelihoods * advantages).mean()[None])
    (gradient,) = torch.autograd.grad(step.loss.sum(), now)
    assert gradient[0, 2].abs().sum() == 0


def test_the_estimate_of_the_divergence_is_zero_at_the_start_and_unbiased():
    now, before = torch.randn(2, 2000).log_softmax(dim=-1)
    assert kl_estimate(now, now).abs().max() == 0 and (kl_estimate(now, before) >= 0).all()
    exact = (now.exp() * (now - before)).sum()
    torch.testing.assert_close((now.exp() * kl_estimate(now, before)).sum(), exact, atol=1e-4, rtol=1e-4)


def test_the_anchor_is_the_mean_over_tokens_that_count():
    now, before = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    tokens = torch.tensor([[[1, 1, 0], [1, 1, 1]]])
    sampled = Sampled([["a", "b"]], now, tokens, torch.tensor([[False, True]]), before)
    torch.testing.assert_close(sampled.divergence, kl_estimate(now, before)[:, 0, :2].mean(dim=-1))
    plain = rlcf(CaptionConfig(), sampled, Scores([0.4, 0.2])).loss
    anchored = rlcf(CaptionConfig(kl_weight=0.5), sampled, Scores([0.4, 0.2])).loss
    torch.testing.assert_close(anchored - plain, 0.5 * sampled.divergence)


def test_the_anchor_holds_the_captioner_near_its_start(make_captioner, view):
    def moved(**settings):
        captioner = make_captioner(steps=6, lr=1e-2, **settings)
        features = captioner.policy.encode(view)
        before = captioner.policy.zero_shot(features)
        after, *_ = captioner._learn(captioner.episodes, [0], features, before, captioner.rewards.see(view))
        texts = captioner.policy.sample(before, 3, max_new_tokens=5)
        now, then = (masked_mean(*captioner.policy.log_likelihood(prefix, texts)) for prefix in (after, before))
        return (now - then).abs().mean()

    assert moved(kl_weight=100.0) < 0.5 * moved()


def test_reranking_answers_with_the_best_rewarded_of_the_captions(make_captioner, view):
    captioner = make_captioner(method="rerank", sample_k=4)
    (answer,) = captioner.adapt([(0, view)])
    before = captioner.policy.zero_shot(captioner.policy.encode(view))
    (texts,) = captioner.policy.sample(before, 4, max_new_tokens=5)
    scores = captioner.rewards.see(view).scores([texts])[0]
    assert answer.adapted == texts[int(scores.argmax())].lower() and answer.trace == []
    assert answer.adapted_reward == pytest.approx(scores.max().item(), abs=1e-6)
    assert captioner.episodes is None


@pytest.fixture
def views():
    return torch.randint(0, 256, (2, 1, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(2))


def test_a_captioner_that_samples_the_same_captions_again_ends_its_episode(make_captioner, view):
    settings = {"lr": 1e-5, "candidates": "both"}
    (settled,) = make_captioner(steps=4, stop_when_settled=2.5, **settings).adapt([(0, view)])
    (two,) = make_captioner(steps=2, **settings).adapt([(0, view)])
    assert settled.settled and settled.trace == two.trace and settled.adapted == two.adapted
    assert two.settled is None and describe(settled)["steps_taken"] == 2 and "settled" not in describe(two)


def test_an_image_that_has_settled_keeps_its_mapper_while_its_neighbour_goes_on(make_captioner, views):
    def largest(answer):
        return max(abs(advantage) for step in answer.trace for advantage in step.advantages[0])

    settings = {"steps": 4, "lr": 1e-5, "eps": 1e-4}
    sizes = [largest(make_captioner(**settings).adapt([(0, view)])[0]) for view in views]
    bound = sum(sizes) / 2  # one of the two settles
    prefixes = {}
    for count in (1, 2):
        captioner = make_captioner(images_at_once=count, stop_when_settled=bound, **settings)
        found = []
        for group in views.split(count):
            stacked = group.flatten(0, 1)
            features = captioner.policy.encode(stacked)
            before, seen = captioner.policy.zero_shot(features), captioner.rewards.see(stacked)
            after, _, ended = captioner._learn(captioner.episodes, [*range(len(group))], features, before, seen)
            found += list(zip(after, ended, strict=True))
        prefixes[count] = found
    assert [ended for _, ended in prefixes[2]] == [ended for _, ended in prefixes[1]]
    assert {ended for _, ended in prefixes[1]} == {2, None}
    for (together, _), (alone, _) in zip(prefixes[2], prefixes[1], strict=True):
        torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


def test_captions_that_are_drawn_do_not_settle():
    with pytest.raises(UserError, match="needs captions that repeat, not draws; use --sampling beam"):
        CaptionConfig(checkpoint="tiny", stop_when_settled=0.1, sampling="nucleus").check()


@pytest.mark.parametrize("name", ["candidates", "kl_weight", "stop_when_settled"])
def test_options_of_rlcf_are_refused_elsewhere(name):
    value = {"candidates": "both", "kl_weight": 0.1, "stop_when_settled": 0.1}[name]
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is for --method rlcf"):
        CaptionConfig(checkpoint="tiny", method="zeroshot", **{name: value}).check()
