import pytest
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import nn

from classification.clip_model import EncoderPolicy, PromptPolicy, class_features
from classification.context import initial_context
from rlcf.clip.prompted_text import PromptedText, prompt_text
from rlcf.clip.tuning import PriorBatchNorm
from rlcf.errors import UserError

from .conftest import NAMES, weights

PROMPT = "a photo of a"


@pytest.fixture
def views():
    """(1, 10, 3, 32, 32), uint8."""
    return torch.randint(0, 256, (1, 10, 3, 32, 32), dtype=torch.uint8)


def changed_by_steps(classifier, views):
    """Names of what differs between the loaded weights and those that answer."""
    policy, seen = classifier.policy, []
    answer = policy.answer
    policy.answer = lambda encoded: seen.append(weights(policy)) or answer(encoded)
    with policy:
        before = weights(policy)
    classifier.adapt([(0, views[0])])
    assert len(seen) == 1 and before.keys() == seen[0].keys()
    return {name for name in before if not torch.equal(before[name], seen[0][name])}


# ---- prompt tuning ----


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_prompted_class_has_the_features_of_its_text(clip, views, position):
    student = clip("vit")
    policy = PromptPolicy(student, NAMES, initial_context(student, "words", 4, PROMPT, 0), position)
    texts = student.encode_text([prompt_text(PROMPT, name, position) for name in NAMES])
    with torch.no_grad():
        images = student.encode_image(student.prepare(views[0]))
        expected = (student.logit_scale * images @ texts.T)[None]
        torch.testing.assert_close(policy.logits(policy.encode(views), policy.classes()), expected, atol=1e-4, rtol=0)
    assert {prompt_text(PROMPT, "sea lion", p) for p in ("end", "middle", "front")} == {
        "a photo of a sea lion.",
        "a photo sea lion of a.",
        "sea lion a photo of a.",
    }


def test_a_context_of_any_length_keeps_the_class_names(clip, views):
    student = clip("vit")
    for n_ctx in (1, 3, 16):
        policy = PromptPolicy(student, NAMES, torch.randn(n_ctx, 64))
        assert policy.logits(policy.encode(views), policy.classes()).shape == (1, 10, 5)


def test_a_context_that_does_not_fit_is_told_with_the_class(clip):
    with pytest.raises(UserError, match=r"80 context tokens and the class name 'dog' exceed 77 tokens"):
        PromptPolicy(clip("vit"), NAMES, torch.randn(80, 64))


def test_prompt_and_image_tower_policies_agree_before_any_step(build, views):
    answers = []
    for tune in ("prompt", "image-encoder", "norm"):
        policy = build(tune).policy
        answers.append(policy.answer(policy.encode(views)))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-4, rtol=0)
    assert torch.equal(answers[1], answers[2])


def test_the_class_features_of_the_start_are_computed_once_without_a_graph(build, views, monkeypatch):
    policy = build("prompt").policy
    passes = []
    forward = PromptedText.__call__
    monkeypatch.setattr(PromptedText, "__call__", lambda *a: passes.append(torch.is_grad_enabled()) or forward(*a))
    features = policy.encode(views)
    first = policy.rank(features, 0)
    assert torch.equal(policy.zero_shot(features), first) and passes == [False]
    with torch.no_grad():
        policy.context.add_(0.1)
    assert not torch.equal(policy.answer(features), first) and passes == [False] * 2
    assert not torch.equal(policy.logits(features, policy.classes()), first) and passes == [False, False, True]
    assert torch.equal(policy.zero_shot(features), first) and len(passes) == 3


# ---- the image tower ----


def norm_parameters(model):
    """Found by type, not by the project's own function."""
    kinds = (nn.LayerNorm, nn.BatchNorm2d)
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    return {f"visual.{name}.{leaf}" for name, layer in layers for leaf in ("weight", "bias")}


def requiring(policy):
    """Names of what requires gradients within the policy."""
    with policy:
        return {name for name, parameter in policy.clip.model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("kind", "count"), [("vit", 2 * (2 * 2 + 2)), ("resnet", 2 * (3 + 4 * (3 + 1)))])
@pytest.mark.parametrize("method", ["tpt", "rlcf"])
def test_norm_tuning_changes_all_normalisation_layers_and_nothing_else(build, views, kind, count, method):
    classifier = build("norm", kind, method, batchnorm="frozen", weight_decay=0.1)
    expected = norm_parameters(classifier.policy.visual)
    assert len(expected) == count and any("downsample" in name for name in expected) == (kind == "resnet")
    assert changed_by_steps(classifier, views) == expected == requiring(classifier.policy)


def test_published_norm_tuning_leaves_the_downsample_branches(build):
    policy = build("norm", "resnet", batchnorm="published-norm").policy
    assert requiring(policy) == {name for name in norm_parameters(policy.visual) if "downsample" not in name}


def test_published_norm_tuning_answers_with_the_statistics_of_the_image_and_zero_shot_does_not(build, views):
    published = build("norm", "resnet", batchnorm="published-norm").policy
    sane = build("norm", "resnet").policy
    with published, sane:
        pixels = sane.encode(views[:, :1])
        assert torch.equal(published.zero_shot(pixels), sane.zero_shot(pixels))
        assert (published.answer(pixels) - sane.answer(pixels)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_image_tower_tuning_changes_the_whole_image_tower_and_nothing_else(build, views, kind):
    classifier = build("image-encoder", kind, batchnorm="frozen", weight_decay=0.1)
    parameters = {f"visual.{name}" for name, _ in classifier.policy.visual.named_parameters()}
    assert changed_by_steps(classifier, views) == parameters == requiring(classifier.policy)


def test_prompt_tuning_changes_the_context_and_nothing_else(build, views):
    assert changed_by_steps(build("prompt"), views) == {"context"}


@pytest.mark.parametrize("batchnorm", ["batch", "frozen"])
def test_a_resnets_answer_does_not_depend_on_the_other_views(build, views, batchnorm):
    policy = build("image-encoder", "resnet", batchnorm=batchnorm).policy
    with policy, torch.no_grad():
        pixels = policy.encode(views)
        torch.testing.assert_close(policy.answer(pixels)[:, :1], policy.answer(pixels[:, :1]), atol=1e-4, rtol=0)
        learnt = policy.logits(pixels, policy.classes())[:, :4], policy.logits(pixels[:, :4], policy.classes())
    same = (learnt[0] - learnt[1]).abs().max() < 1e-4
    assert same == (batchnorm == "frozen") and policy.views_interact == (batchnorm == "batch")


def test_batch_statistics_move_while_tuning_and_frozen_ones_do_not(build, views):
    for batchnorm in ("batch", "frozen"):
        moved = changed_by_steps(build("norm", "resnet", batchnorm=batchnorm), views)
        assert any("running" in name for name in moved) == (batchnorm == "batch")


def test_a_strong_prior_is_the_stored_statistics_and_a_weak_one_the_batchs(build, views):
    def logits(**settings):
        policy = build("image-encoder", "resnet", **settings).policy
        with policy, torch.no_grad():
            return policy.logits(policy.encode(views), policy.classes())

    stored, batch = logits(batchnorm="frozen"), logits()
    torch.testing.assert_close(logits(bn_prior=1e7), stored, atol=1e-3, rtol=0)
    torch.testing.assert_close(logits(bn_prior=1e-7), batch, atol=0.1, rtol=0)  # but for Bessel's correction
    assert min((logits(bn_prior=1.0) - other).abs().max() for other in (stored, batch)) > 0.5


@pytest.mark.parametrize("tune", ["image-encoder", "norm"])
def test_a_statistics_prior_is_for_tuning_and_the_stored_statistics_answer(build, views, tune):
    classifier, plain = build(tune, "resnet", bn_prior=1.0), build(tune, "resnet").policy
    (outcome,) = classifier.adapt([(0, views[0])])
    with plain:
        expected = plain.zero_shot(plain.encode(views[:, :1]))[0, 0]
    torch.testing.assert_close(outcome.before, expected, atol=1e-4, rtol=0)
    assert (outcome.after - outcome.before).abs().max() > 1e-3
    assert not any("running" in name for name in changed_by_steps(classifier, views))


def test_a_statistics_prior_reaches_every_batchnorm_while_its_policy_is_in_use(build):
    policy = build("image-encoder", "resnet", bn_prior=4.0).policy
    layers = [layer for layer in policy.visual.modules() if isinstance(layer, nn.BatchNorm2d)]
    with policy:
        priors = [layer for layer in policy.visual.modules() if isinstance(layer, PriorBatchNorm)]
        assert len(layers) == 19 and [prior.layer for prior in priors] == layers
        assert {prior.share for prior in priors} == {4.0 / 5.0}
    assert not any(isinstance(layer, PriorBatchNorm) for layer in policy.visual.modules())


def test_a_statistics_prior_needs_a_resnet(clip):
    with pytest.raises(UserError, match=r"--bn-prior is for CLIP's ResNets; .*vit.pt has no BatchNorm"):
        EncoderPolicy(clip("vit"), torch.ones(5, 16), bn_prior=16.0)


# ---- class features ----


def test_80_templates_are_averaged_at_unit_length(clip):
    student = clip("vit")
    features = class_features(student, NAMES, "unused", templates="imagenet80")
    for name, feature in zip(NAMES, features, strict=True):
        each = student.encode_text([template(name) for template in OPENAI_IMAGENET_TEMPLATES])
        torch.testing.assert_close(feature, F.normalize(each.mean(dim=0), dim=-1), atol=1e-6, rtol=0)
    assert features.shape == (5, 16)


def test_one_prompt_is_its_own_feature(clip):
    student = clip("vit")
    features = class_features(student, NAMES, "a_photo_of_a", "front")
    texts = student.encode_text([f"{name} a_photo_of_a." for name in NAMES])
    torch.testing.assert_close(features, texts, atol=1e-6, rtol=0)


def test_a_class_text_that_would_be_cut_is_refused(demo_clip):
    with pytest.raises(UserError, match=r"no room for 'a photo of a dog dog"):
        class_features(demo_clip(), ["cat", "dog " * 40], "a photo of a")
