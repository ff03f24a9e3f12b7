"""The methods beside RLCF as published: each answers as its formula says, and refuses settings that are not its own."""

import math

import pytest
import torch

from classification import Classifier
from classification.config import ClassificationConfig
from classification.methods import METHODS
from classification.objectives import OBJECTIVES
from classification.training_free import ANSWERS, Cache, Image
from rlcf.adapt.objectives import (
    clipped_policy_gradient,
    kl_divergence,
    mean_prediction,
    policy_gradient,
    reinforce,
    select_confident,
    text_dispersion,
)
from rlcf.adapt.rewards import ClipScorer, Seen
from rlcf.errors import UserError
from rlcf.run.setup import Models
from rlcf.run.shard import Shard
from tests.tools import break_off_after, same

MODELS = {"student": "demo-student", "reward": ["demo-reward"], "workers": 0}
GUIDED = {"method": "rlcf", "tune": "image-encoder", "batchnorm": "frozen", "lr": 1e-4, "views": 8, "selection": 0.5}


class Scaled:
    """A reward model that is its logit scale alone."""

    logit_scale = 10.0


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture
def image():
    """Two made-up images with eight views each, six classes, four views kept."""
    features, classes, scale = unit(2, 8, 16), unit(6, 16), torch.tensor(10.0)
    kept = select_confident(scale * features @ classes.T, 4)
    seen = Seen([ClipScorer(Scaled, unit(2, 4, 12), unit(6, 12))], [1.0])
    return Image(features, classes, scale, kept, seen)


def answer(method, image, **settings):
    return ANSWERS[method](ClassificationConfig(method=method, **settings), image)


def test_the_mean_prediction_is_that_of_the_kept_views(image):
    kept = torch.stack([image.logits[n, image.kept[n]] for n in range(2)])
    probabilities = kept.softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(answer("views", image).exp(), probabilities)
    features = torch.stack([image.features[n, image.kept[n]].mean(dim=0) for n in range(2)])
    torch.testing.assert_close(
        answer("views", image, pool="features"), (10 * features @ image.classes.T).log_softmax(-1)
    )


def test_the_reward_alone_answers_with_its_own_logits(image):
    expected = image.seen.teacher_logits.softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(answer("reward", image).exp(), expected)


def test_an_ensemble_is_the_product_or_the_mean_of_both_models(image):
    student, reward = answer("views", image).exp(), answer("reward", image).exp()
    product = student * reward
    torch.testing.assert_close(answer("ensemble", image).exp(), product / product.sum(dim=1, keepdim=True))
    torch.testing.assert_close(answer("ensemble", image, combine="mean").exp(), (student + reward) / 2)


def test_reranking_orders_the_students_likeliest_classes_by_their_reward(image):
    student = answer("views", image)
    order = answer("rerank", image, sample_k=3).argsort(dim=-1, descending=True)
    for n in range(2):
        best = student[n].topk(3).indices
        scores = image.seen.scores(best.expand(2, 4, 3))[n].mean(dim=0)
        assert order[n, :3].tolist() == best[scores.argsort(descending=True)].tolist()
        assert order[n, 3:].tolist() == student[n].argsort(descending=True)[3:].tolist()


def test_a_tie_of_votes_goes_to_the_tied_class_that_the_student_finds_likeliest():
    """Two views vote for classes 0 and 1; the third, which is not kept, prefers 2, then 1."""
    classes = torch.eye(3)
    features = torch.tensor([[[9.0, 0, 0], [0, 9.0, 0], [0, 0.4, 0.5]]])
    tied = Image(features, classes, torch.tensor(1.0), torch.tensor([[0, 1]]))
    assert answer("zero", tied).exp().tolist() == [[1.0, 2.0, 0.0]]
    published = answer("zero", tied, published_ties=True).exp()  # leaves out the mirrored classes: 1 and 2 here
    assert published.tolist() == [[2.0, 1.0, 0.0]]


def test_caches_take_the_most_certain_images_of_a_class():
    cache, classes = Cache(torch.eye(4)), torch.eye(4)
    plain = torch.zeros(4)
    for uncertainty in (0.9, 0.5, 0.7, 0.6):
        cache.answer(classes[0] * uncertainty, torch.tensor([5.0, 0, 0, 0]), plain, uncertainty)
    assert sorted(cache.state_dict()["positive_entropy"][0].tolist()) == pytest.approx([0.5, 0.6, 0.7])
    kept = cache.state_dict()["negative_entropy"]  # H / log2(4) between 0.2 and 0.5: all of them
    assert sorted(kept[0].tolist()) == pytest.approx([0.5, 0.6]) and math.isinf(kept[1, 0])


def test_dispersion_is_the_mean_distance_from_the_mean_feature():
    assert text_dispersion(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == 1.0


def test_divergence_from_the_start_is_zero_there_and_positive_elsewhere():
    before = torch.randn(3, 5)
    assert kl_divergence(before, before).item() == pytest.approx(0.0, abs=1e-6)
    now, then = (before + torch.randn(3, 5)).softmax(-1), before.softmax(-1)
    expected = (now * (now / then).log()).sum(-1).mean()
    torch.testing.assert_close(kl_divergence(now.log(), before), expected)


def test_the_clipped_ratio_has_the_gradient_of_reinforce_at_the_first_step():
    logits, chosen = torch.randn(2, 5, requires_grad=True), torch.tensor([[0, 1], [2, 3]])
    advantages = torch.randn(2, 2)
    likelihood = logits.log_softmax(-1).gather(-1, chosen)
    clipped = clipped_policy_gradient(likelihood, likelihood.detach(), advantages, 0.2)
    first, second = (
        torch.autograd.grad(loss, logits, retain_graph=True)[0]
        for loss in (clipped, policy_gradient(likelihood, advantages))
    )
    torch.testing.assert_close(first, second)


def test_a_ratio_beyond_its_bound_has_no_gradient():
    likelihood = torch.tensor([[math.log(0.5)]], requires_grad=True)
    loss = clipped_policy_gradient(likelihood, torch.tensor([[math.log(0.25)]]), torch.tensor([[1.0]]), 0.2)
    assert torch.autograd.grad(loss, likelihood)[0].item() == 0.0


def test_both_models_candidates_count_once_each():
    """The student's two likeliest classes are 0 and 1, the reward model's best 1 and 4."""
    logits, scores = torch.tensor([[5.0, 4.0, 1.0, 0.0, -1.0]]), torch.tensor([0.1, 0.6, 0.2, 0.3, 0.9])
    both = reinforce(logits, lambda answers: scores[answers], 2, further=torch.tensor([[1, 4]]))
    likelihood = logits.log_softmax(-1)[:, [0, 1, 4]]
    advantages = torch.tensor([[0.1, 0.6, 0.9]]) - (0.1 + 0.6 + 0.9) / 3
    torch.testing.assert_close(both.loss, policy_gradient(likelihood, advantages))


@pytest.mark.parametrize("how", ["product", "mean"])
def test_an_answer_with_the_reward_model_is_its_ensemble_with_the_adapted_student(how, demo_clip):
    crops = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    models = Models(demo_clip(), [demo_clip("demo-reward")])

    def answer(crops, **settings):
        classifier = Classifier.of(ClassificationConfig(sample_k=2, **settings), models, ["cat", "dog", "owl"])
        return classifier.adapt([(0, crops)])[0].answer.softmax(dim=-1)

    unmoved = answer(crops, **{**GUIDED, "lr": 1e-12, "views": 4}, answer=how)
    centre = answer(crops[:1], method="ensemble", pool="centre", combine=how)
    torch.testing.assert_close(unmoved, centre, atol=1e-5, rtol=0)


def test_mean_predictions_are_probabilities():
    assert mean_prediction(torch.randn(4, 7)).exp().sum().item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if not method.adapts])
def test_methods_without_gradients_clone_no_tower_and_need_no_gradients(method, demo_clip, monkeypatch):
    student = demo_clip()
    config = ClassificationConfig(method=method, views=5, selection=0.5, sample_k=2)
    rewards = [demo_clip("demo-reward")] if config.asks_rewards else []
    weights = [clip.model.state_dict() for clip in (student, *rewards)]
    before = [{name: value.clone() for name, value in held.items()} for held in weights]
    monkeypatch.setattr("copy.deepcopy", lambda *_: pytest.fail("a copy of a model"))
    classifier = Classifier.of(config, Models(student, rewards), ["cat", "dog", "owl"])
    assert classifier.episodes is None and classifier.policy.clip is student
    (outcome,) = classifier.adapt([(0, torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8))])
    assert outcome.trace == [] and not outcome.answer.requires_grad
    assert all(same(held, kept) for held, kept in zip(weights, before, strict=True))
    assert not any(parameter.requires_grad for parameter in student.model.parameters())


@pytest.mark.parametrize(
    "flags",
    [
        ["--method", "zero", "--voter", "reward"],
        ["--method", "mta"],
        ["--method", "views", "--pool", "features", "--templates", "imagenet80"],
        ["--method", "reward", "--pool", "centre"],
        ["--method", "ensemble", "--combine", "mean"],
        ["--method", "rerank"],
        ["--method", "ctpt", "--tune", "prompt", "--steps", "1", "--images-at-once", "2"],
        ["--candidates", "both", "--learn-from-centre", "--kl-weight", "0.1", "--gate", "agree", "--answer", "product"],
        ["--clip-ratio", "0.2", "--baseline", "all", "--divide-by-std", "--steps", "2"],
    ],
    ids=lambda flags: " ".join(flags[:4]),
)
def test_every_method_and_option_runs_over_a_dataset(flags, classify):
    results = classify(*flags)
    assert results.metrics["folder:blur"]["n"] == 12
    assert {record["status"] for record in results.records()} == {"ok"}


def test_the_reward_alone_on_the_centre_crop_is_the_reward_model_as_student(classify):
    alone = classify("--method", "reward", "--pool", "centre", output="a").records()
    student = classify("--method", "zeroshot", "--student", "demo-reward", output="b").records()
    assert [record["adapted"] for record in alone] == [record["zero_shot"] for record in student]


def test_a_cache_that_was_kept_goes_on_where_it_was(classify, monkeypatch):
    whole = classify("--method", "tda", output="whole").records()
    with monkeypatch.context() as patch:
        break_off_after(5, patch)
        with pytest.raises(KeyboardInterrupt):
            classify("--method", "tda", output="broken")
    assert classify("--method", "tda", output="broken").records() == whole


def test_caches_make_an_answer_depend_on_the_images_before_it(classify):
    assert any(r["zero_shot_confidence"] != r["adapted_confidence"] for r in classify("--method", "tda").records())


def test_the_gate_leaves_out_the_episodes_of_images_that_both_models_agree_on(classify, capsys):
    plain = {record["id"]: record for record in classify(output="plain").records()}
    gated = classify("--gate", "agree", output="gated")
    records = gated.records()
    left_out = [record for record in records if record.get("gated")]
    assert 0 < len(left_out) < len(records)
    for record in records:
        if record.get("gated"):
            assert record["steps"] == [] and record["adapted"] == record["zero_shot"]
        else:
            assert record["adapted"] == plain[record["id"]]["adapted"]
    summary = gated.metrics["folder:blur"]
    assert summary["gated"] == len(left_out) and summary["seconds_saved"] > 0
    assert f"{len(left_out)} without an episode, both models agree" in capsys.readouterr().out


def test_the_gate_leaves_out_the_same_images_of_a_group(classify):
    """In a group of which some agree the others adapt, and the answers are those of one image at a time."""
    flags = ["--gate", "agree", "--answer", "mean", "--tune", "prompt", "--lr", "7e-3"]
    one, several = (classify(*flags, "--images-at-once", n, output=n).records() for n in ("1", "4"))
    assert [record.get("gated") for record in one] == [record.get("gated") for record in several]
    assert [record["adapted"] for record in one] == [record["adapted"] for record in several]
    confidences = [[record["adapted_confidence"] for record in records] for records in (one, several)]
    assert confidences[0] == pytest.approx(confidences[1], abs=1e-3)
    groups = [[bool(record.get("gated")) for record in one[start : start + 4]] for start in range(0, 12, 4)]
    assert any(any(group) and not all(group) for group in groups)


def test_a_momentum_run_with_a_gate_goes_on_where_it_was(classify, monkeypatch):
    flags = ["--gate", "agree", "--momentum", "--momentum-every", "2", "--momentum-decay", "0.5"]
    whole = classify(*flags, output="whole").records()
    with monkeypatch.context() as patch:
        groups = break_off_after(8, patch)
        with pytest.raises(KeyboardInterrupt):
            classify(*flags, output="broken")
    with monkeypatch.context() as patch:
        continued = break_off_after(None, patch)
        assert classify(*flags, output="broken").records() == whole
    assert len(continued) < len(whole) and groups


def test_the_centre_crop_is_learnt_from_where_that_is_asked_for(classify):
    views = [record["steps"][0]["views"] for record in classify("--learn-from-centre").records()]
    assert all(kept[0] == 0 and len(set(kept)) == len(kept) == 3 for kept in views)


def test_both_models_candidates_are_in_the_trace(classify):
    step = classify("--candidates", "both", "--sample-k", "2").records()[0]["steps"][0]
    assert all(len(answers) == 4 for answers in step["answers"])
    for answers, rewards in zip(step["answers"], step["rewards"], strict=True):
        counted = [answer for answer, reward in zip(answers, rewards, strict=True) if reward is not None]
        assert len(set(counted)) == len(counted) and set(counted) == set(answers)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--method tpt --voter reward", "--voter is for --method zero"),
        ("--method tpt --tune prompt --gate agree", "--gate is for --method rlcf or kd or dkd or atkd"),
        ("--method zeroshot --pool features", "--pool is for --method views or reward or ensemble or rerank"),
        ("--method tpt --dispersion-weight 3", "--dispersion-weight is for --method ctpt"),
        ("--method kd --candidates both", "--candidates is for --method rlcf"),
        ("--method kd --stop-when-settled 0.1", "--stop-when-settled is for --method rlcf"),
        ("--stop-when-settled 0.1 --steps 2", "--stop-when-settled needs three --steps or more"),
        ("--method ctpt", "--method ctpt moves the class features; use --tune prompt"),
        ("--method tda --images-at-once 2", "--images-at-once is for a method that tunes the prompt"),
        ("--method mta --views 4", "--method mta needs five --views or more"),
        ("--method mta --momentum", "--momentum is for a method that adapts weights; mta does not"),
        ("--clip-ratio 0.2 --steps 1", "--clip-ratio needs two --steps or more"),
        (
            "--reward py:a:b --gate agree",
            "--reward py:a:b gives scores, not logits, which --gate agree needs; give a CLIP",
        ),
        ("--reward py:a:b --answer mean", "--reward py:a:b gives scores, not logits, which --answer mean needs"),
        (
            "--reward py:a:b --method ensemble",
            "--reward py:a:b gives scores, not logits, which --method ensemble needs",
        ),
        (
            "--reward py:a:b --candidates both",
            "--reward py:a:b gives scores, not logits, which --candidates both needs",
        ),
        (
            "--reward py:a:b --method zero --voter reward",
            "--reward py:a:b gives scores, not logits, which --voter reward",
        ),
    ],
)
def test_settings_that_a_method_does_not_have_are_refused(flags, message, classify):
    with pytest.raises(UserError) as error:
        classify(*flags.split())
    assert str(error.value).startswith(message)


def test_an_online_method_is_one_process(classify, monkeypatch):
    monkeypatch.setattr(Shard, "from_environment", staticmethod(lambda: Shard(0, 2)))
    with pytest.raises(UserError, match="--method tda carries state from sample to sample and cannot be sharded"):
        classify("--method", "tda")


def test_presets_of_the_methods_have_their_published_settings():
    from rlcf.run.config import parse_config

    def read(name):
        return parse_config(ClassificationConfig, ["--config", name], "", "")

    for name, voter in (("zero-student", "student"), ("zero-reward", "reward")):
        config = read(name)
        assert (config.method, config.voter, config.views, config.kept) == ("zero", voter, 64, 19)
    assert (read("mta").mta_lambda_y, read("mta").mta_lambda_q, read("tda").kept) == (0.2, 4.0, 6)
    for name, weight, augment in (("ctpt-shifts", 20.0, "crop"), ("ctpt-fine", 50.0, "augmix")):
        config = read(name)
        assert (config.steps, config.lr, config.weight_decay) == (1, 5e-3, 1e-2)
        assert (config.dispersion_weight, config.augment) == (weight, augment)


def test_each_method_has_an_objective_or_an_answer_by_what_it_needs():
    assert set(OBJECTIVES) == {name for name, method in METHODS.items() if method.adapts}
    assert set(ANSWERS) == {name for name, method in METHODS.items() if not method.adapts}
