"""The walk of an image: what is asked of the towers, what is put back, and what is not finite."""

import pytest
import torch

from classification.methods import METHODS
from tests.tools import same

from .conftest import weights

ADAPTING = [name for name, method in METHODS.items() if method.adapts]
VITS = [("prompt", "vit"), ("image-encoder", "vit"), ("norm", "vit")]
POLICIES = [*VITS, ("image-encoder", "resnet"), ("norm", "resnet")]


@pytest.fixture
def views():
    """(10, 3, 32, 32), uint8."""
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)


def outcome_of(classifier, views):
    (outcome,) = classifier.adapt([(0, views)])
    return outcome


@pytest.mark.parametrize(
    ("tune", "kind", "method"),
    [(*part, method) for part in POLICIES for method in ADAPTING if method != "ctpt" or part[0] == "prompt"],
)
def test_an_episode_changes_the_answer_and_puts_every_weight_back(build, views, tune, kind, method):
    classifier = build(tune, kind, method)
    before = weights(classifier.policy)
    first = outcome_of(classifier, views)
    assert same(weights(classifier.policy), before)
    assert first.before.shape == first.after.shape == (5,) and (first.before - first.after).abs().max() > 1e-3
    again = outcome_of(classifier, views)
    assert torch.equal(again.before, first.before) and torch.equal(again.after, first.after)


@pytest.fixture
def passes(monkeypatch):
    """The calls that a policy gets: (name, number of views, True for a graph)."""
    seen = []

    def watch(policy):
        for name in ("rank", "logits", "zero_shot", "answer"):
            function = getattr(policy, name)

            def wrapped(encoded, *further, name=name, function=function):
                result = function(encoded, *further)
                seen.append((name, encoded.shape[1], result.requires_grad))
                return result

            monkeypatch.setattr(policy, name, wrapped)
        return seen

    return watch


@pytest.mark.parametrize(("tune", "kind"), [*VITS, ("norm", "resnet")])
def test_only_the_views_that_are_learnt_from_carry_a_graph(build, views, passes, tune, kind):
    classifier = build(tune, kind, **({"batchnorm": "frozen"} if kind == "resnet" else {}))
    seen = passes(classifier.policy)
    outcome_of(classifier, views)
    learning = [("logits", 4, True)] * 2
    assert seen == [("rank", 10, False), *learning, ("answer", 1, False), ("zero_shot", 1, False)]


def test_the_gate_decides_before_there_is_a_graph(build, views, passes, monkeypatch):
    monkeypatch.setattr("classification.classifier.agree", lambda *_: torch.tensor([True]))
    classifier = build("image-encoder", gate="agree")
    seen = passes(classifier.policy)
    assert outcome_of(classifier, views).gated and seen == [("rank", 10, False), ("zero_shot", 1, False)]


def test_views_that_share_batch_statistics_are_learnt_from_in_the_pass_that_ranks_them(build, views, passes):
    classifier = build("norm", "resnet")
    seen = passes(classifier.policy)
    outcome_of(classifier, views)
    ranking = [("logits", 10, True), ("rank", 10, True)]  # ranking asks for them with a graph
    assert seen == [*ranking, ("logits", 4, True), ("answer", 1, False), ("zero_shot", 1, False)]


def test_a_policys_logits_have_a_graph_whatever_was_asked_before(build, views):
    """No behaviour hangs on the grad mode in which a context was first seen."""
    policy = build("prompt").policy
    features = policy.encode(views[None])
    for _ in range(2):
        assert not policy.rank(features, 0).requires_grad and not policy.answer(features).requires_grad
        assert policy.logits(features, policy.classes(0)).requires_grad
        assert policy.logits(features, policy.classes()).requires_grad


def count_images(clip, counts, name, monkeypatch):
    encode = clip._image_features
    monkeypatch.setitem(vars(clip), "_image_features", lambda x: counts.append((name, len(x))) or encode(x))


def test_frozen_towers_see_an_image_once(build, views, monkeypatch):
    classifier = build("prompt", steps=3)
    student, reward = classifier.models.student, classifier.models.rewards[0]
    counts = []
    count_images(student, counts, "student", monkeypatch)
    count_images(reward, counts, "reward", monkeypatch)
    monkeypatch.setattr(reward.model, "encode_text", None)
    outcome_of(classifier, views)
    assert counts == [("student", 10), ("reward", 4)]


def test_the_reward_model_sees_the_most_confident_views_and_the_trace_names_them(build, views, monkeypatch):
    classifier = build("image-encoder")
    seen = []
    see = classifier.rewards.see
    monkeypatch.setattr(classifier.rewards, "see", lambda kept: seen.append(kept) or see(kept))
    policy = classifier.policy
    entropy = torch.distributions.Categorical(logits=policy.zero_shot(policy.encode(views[None]))[0]).entropy()
    expected = entropy.argsort()[:4]
    outcome = outcome_of(classifier, views)
    assert len(seen) == 1 and torch.equal(seen[0][0], views[expected])
    assert [step.views for step in outcome.trace] == [expected.tolist()] * 2


def test_zero_shot_asks_for_the_centre_view_alone(build, views, passes):
    classifier = build("image-encoder", method="zeroshot")
    seen = passes(classifier.policy) if hasattr(classifier.policy, "rank") else []
    assert classifier.config.n_views == 1 and seen == []
    outcome = outcome_of(classifier, views[:1])
    assert torch.equal(outcome.before, outcome.after) and outcome.trace == []


@pytest.mark.parametrize("tune", ["prompt", "image-encoder", "norm"])
@pytest.mark.parametrize("where", ["logits", "answer"])
def test_what_is_not_finite_keeps_the_zero_shot_answer(build, views, tune, where, monkeypatch):
    classifier = build(tune)
    policy = classifier.policy
    before = weights(policy)
    expected = outcome_of(classifier, views).before
    function = getattr(policy, where)
    monkeypatch.setattr(policy, where, lambda *arguments: function(*arguments) * torch.nan)
    outcome = outcome_of(classifier, views)
    assert outcome.after is None and torch.equal(outcome.answer, expected)
    assert torch.equal(outcome.before, expected) and same(weights(policy), before)


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_with_momentum_the_zero_shot_answer_is_still_the_loaded_models(build, views, tune):
    classifier = build(tune, momentum=True, momentum_every=1, momentum_decay=0.5)
    outcomes = [outcome_of(classifier, views) for _ in range(3)]
    assert torch.equal(outcomes[0].before, outcomes[1].before) and torch.equal(outcomes[0].before, outcomes[2].before)
    assert not torch.equal(outcomes[0].after, outcomes[1].after)
