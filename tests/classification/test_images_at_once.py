"""Several images adapted to at once, views screened in bf16: the answers of one image at a time."""

import pytest
import torch

from classification.clip_model import screening_features
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import side_by_side
from rlcf.adapt.objectives import select_confident
from rlcf.errors import UserError
from tests.tools import same

from .conftest import weights

NAMES = ["dog", "sea lion", "pizza", "sports car", "owl", "cat"]
TUNED = [("prompt", "vit"), ("norm", "vit"), ("norm", "resnet")]


@pytest.fixture
def images():
    """The views of five images, (8, 3, 64, 64) each."""
    generator = torch.Generator().manual_seed(1)  # of other seeds some image lies where a ReLU has its kink
    return list(torch.randint(0, 256, (5, 8, 3, 64, 64), dtype=torch.uint8, generator=generator))


@pytest.fixture
def classifier(build):
    """A classifier of six classes that keeps three of eight views."""

    def make(tune="prompt", kind="vit", method="rlcf", **further):
        # A larger epsilon: where Adam divides tiny gradients by themselves, the order of float operations decides.
        rates = {"lr": 5e-2, "eps": 0.1} if kind == "resnet" else {"lr": 1e-2, "eps": 1e-3}
        return build(tune, kind, method, NAMES, **{"views": 8, **rates, **further})

    return make


def outcomes(classifier, group):
    """Those of each image of a group that fits."""
    return side_by_side(list(enumerate(group)), classifier.adapt)


def logits(classifier, groups):
    """Before and after of all images, (5, 2, C)."""
    found = [outcome for group in groups for outcome in outcomes(classifier, group)]
    return torch.stack([torch.stack([outcome.before, outcome.after]) for outcome in found])


def in_groups(images, size):
    return [images[i : i + size] for i in range(0, len(images), size)]


@pytest.mark.parametrize(("tune", "kind"), TUNED)
@pytest.mark.parametrize("method", ["tpt", "rlcf", "kd", "dkd", "atkd"])
def test_several_images_at_once_have_the_answers_of_one_at_a_time(classifier, images, tune, kind, method):
    alone = logits(classifier(tune, kind, method), in_groups(images, 1))
    together = logits(classifier(tune, kind, method, images_at_once=3), in_groups(images, 3))  # 3, then 2
    torch.testing.assert_close(together, alone, atol=5e-4, rtol=1e-4)
    assert ((alone[:, 1] - alone[:, 0]).abs().amax(dim=1) > 1e-2).sum() >= 3  # where scores do not all clamp to 0


def test_images_that_pass_a_tower_a_few_at_a_time_keep_their_own_layers(classifier, images, monkeypatch):
    whole = logits(classifier("norm", images_at_once=5), [images])
    monkeypatch.setattr("rlcf.clip.backbone.CACHED_PIXELS", 3 * 32 * 32)
    torch.testing.assert_close(logits(classifier("norm", images_at_once=5), [images]), whole, atol=5e-4, rtol=1e-4)
    torch.testing.assert_close(logits(classifier("norm"), in_groups(images, 1)), whole, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize("further", [{"batchnorm": "frozen"}, {"batchnorm": "published-norm"}, {"bn_prior": 4.0}])
def test_statistics_of_batchnorm_are_each_images_own(classifier, images, further):
    alone = logits(classifier("norm", "resnet", **further), in_groups(images, 1))
    together = logits(classifier("norm", "resnet", images_at_once=2, **further), in_groups(images, 2))
    torch.testing.assert_close(together, alone, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "further",
    [{"baseline": "all", "divide_by_std": True}, {"entropy_weight": 1.0}, {"class_chunk": 2}, {"sample_k": 1}],
)
def test_objectives_are_each_images_own(classifier, images, further):
    alone = logits(classifier(**further), in_groups(images, 1))
    together = logits(classifier(images_at_once=5, **further), [images])
    torch.testing.assert_close(together, alone, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize(("tune", "kind"), TUNED)
def test_the_weights_are_back_after_several_images(classifier, images, tune, kind):
    several = classifier(tune, kind, images_at_once=3)
    policy = several.policy
    own = {name: value.detach().clone() for name, value in {**policy.tuned, **policy.buffers}.items()}
    model, layers = weights(policy), list(policy.clip.model.modules())
    outcomes(several, images[:3])
    assert same({**policy.tuned, **policy.buffers}, own) and same(weights(policy), model)
    assert list(policy.clip.model.modules()) == layers


def test_only_normalisation_layers_get_gradients_for_several_images(classifier, images):
    policy = classifier("norm", "resnet", images_at_once=2, batchnorm="published-norm").policy
    with policy:
        policy.logits(policy.encode(torch.stack(images[:2])), policy.classes()).sum().backward()
        assert all(parameter.grad is not None for parameter in policy.tuned.values())
        learning = [parameter for parameter in policy.clip.model.parameters() if parameter.requires_grad]
        assert set(learning) == set(policy.tuned.values())


def test_one_image_that_gives_nothing_finite_leaves_the_others_answers(classifier, images, monkeypatch):
    alone = logits(classifier(), in_groups(images[:3], 1))
    several = classifier(images_at_once=3)
    policy = several.policy
    spoilt = policy.encode(images[1][None])[0]
    learnt_from = policy.logits

    def logits_of(features, classes):
        found = learnt_from(features, classes)
        of_the_spoilt = (features[..., :1, None, :] == spoilt).all(dim=-1).flatten(1).any(dim=-1)
        return torch.where(of_the_spoilt[:, None, None], torch.nan, found)

    monkeypatch.setattr(policy, "logits", logits_of)
    found = outcomes(several, images[:3])
    assert [outcome.after is None for outcome in found] == [False, True, False]
    for image in (0, 2):
        torch.testing.assert_close(found[image].after, alone[image, 1], atol=5e-4, rtol=1e-4)
    torch.testing.assert_close(found[1].before, alone[1, 0], atol=5e-4, rtol=1e-4)


def test_fp16_steps_that_overflow_are_left_out_of_that_images_episode_alone(classifier, images):
    """With so large a loss of one image its first scaled step overflows; alone it goes on, and so it does here."""
    answers = []
    for count in (1, 2):
        found = classifier(images_at_once=count, steps=3, entropy_weight=1e36)
        policy = found.policy
        found.episodes = Episodes.from_config(found.config, policy.tuned, policy.buffers, "fp16")
        answers.append(logits(found, in_groups(images[:2], count)))
    torch.testing.assert_close(answers[1], answers[0], atol=5e-4, rtol=1e-4)


def test_layers_that_are_not_clips_are_refused(classifier, clip):
    student = clip("vit")
    student.model.visual.ln_pre = torch.nn.GroupNorm(1, 64)
    with pytest.raises(UserError, match=r"GroupNorm of .*one"):
        classifier("norm", images_at_once=2, student=student)


def test_the_trace_of_an_image_among_several_is_that_of_it_alone(classifier, images):
    alone, several = classifier(), classifier(images_at_once=3)
    found = outcomes(several, images[:3])
    for index, outcome in enumerate(found):
        (expected,) = outcomes(alone, images[index : index + 1])
        for ours, theirs in zip(outcome.trace, expected.trace, strict=True):
            assert (ours.views, ours.answers) == (theirs.views, theirs.answers)
            torch.testing.assert_close(torch.tensor(ours.rewards), torch.tensor(theirs.rewards))
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-4)


# ---- views screened in bf16 ----


@pytest.mark.parametrize(
    ("tune", "kind", "at_once"),
    [
        ("prompt", "vit", 1),
        ("prompt", "vit", 2),
        ("image-encoder", "vit", 1),
        ("norm", "resnet", 1),
        ("norm", "resnet", 2),
    ],
)
def test_screened_views_are_confirmed_in_the_runs_own_precision(classifier, images, tune, kind, at_once):
    further = {"images_at_once": at_once, "batchnorm": "frozen"}
    plain = logits(classifier(tune, kind, **further), in_groups(images, at_once))
    screening = classifier(tune, kind, select_precision="bf16", **further)
    seen, confirm = [], screening.policy.rank
    screening.policy.rank = lambda encoded, start: seen.append(encoded.shape[1]) or confirm(encoded, start)
    torch.testing.assert_close(logits(screening, in_groups(images, at_once)), plain, atol=5e-4, rtol=1e-4)
    assert set(seen) == {1 + 2 * 3}  # of 8 views: the centre crop, and twice as many as are kept


def test_the_shortlist_is_the_centre_and_the_most_confident_in_bf16(classifier, images):
    screening = classifier("image-encoder", select_precision="bf16")
    policy, views = screening.policy, images[0][None]
    ranked = select_confident(policy.screen(views, 0)[:, 1:], 6) + 1
    few, numbers = screening._shortlist(policy, views, 0)
    assert numbers.tolist() == [[0, *ranked[0].tolist()]] and torch.equal(few[0], images[0][numbers[0]])
    (outcome,) = outcomes(screening, images[:1])
    assert outcome.trace[0].views == outcomes(classifier("image-encoder"), images[:1])[0].trace[0].views
    difference = (policy.screen(views, 0) - policy.zero_shot(policy.encode(views))).abs().max()
    assert 1e-6 < difference < 0.5 and policy.clip.precision == "fp32"
    assert screening_features(policy.clip, views).dtype == torch.float32


def test_views_that_share_statistics_are_not_screened(classifier):
    with pytest.raises(UserError, match=r"--select-precision bf16 leaves out views .*use --batchnorm frozen"):
        classifier("norm", "resnet", select_precision="bf16")


def test_few_views_are_not_screened(classifier, images, monkeypatch):
    screening = classifier("image-encoder", select_precision="bf16", selection=1.0, views=1)
    monkeypatch.setattr(screening.policy, "screen", None)
    (outcome,) = outcomes(screening, [images[0][:1]])
    assert outcome.before.shape == outcome.after.shape == (6,)
