"""Several images adapted to at once, views screened in bf16: the answers of one image at a time."""

from functools import partial

import pytest
import torch

from classification.clip_model import EncoderPolicy
from classification.config import ClassificationConfig
from classification.main import adapt, adapt_group, make_policy, make_rewards, shortlist
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import side_by_side
from rlcf.adapt.objectives import select_confident
from rlcf.errors import UserError

NAMES = ["dog", "sea lion", "pizza", "sports car", "owl", "cat"]
TUNED = [("prompt", "vit"), ("norm", "vit"), ("norm", "resnet")]


@pytest.fixture
def images():
    """The views of five images, (8, 3, 64, 64) each."""
    generator = torch.Generator().manual_seed(1)  # of other seeds some image lies where a ReLU has its kink
    return list(torch.randint(0, 256, (5, 8, 3, 64, 64), dtype=torch.uint8, generator=generator))


@pytest.fixture
def setting(clip):
    """Config, policy, rewards and episodes, as the entry script puts them together."""

    def make(tune="prompt", kind="vit", method="rlcf", **further):
        # A larger epsilon: where Adam divides tiny gradients by themselves, the order of float operations decides.
        rates = {"lr": 5e-2, "eps": 0.1} if kind == "resnet" else {"lr": 1e-2, "eps": 1e-3}
        shared = {"method": method, "tune": tune, "views": 8, "selection": 0.4, "steps": 2}
        config = ClassificationConfig(**{**shared, **rates, **further})
        policy = make_policy(config, clip(kind), NAMES)
        rewards = make_rewards(config, [clip("resnet")] if config.reward_names else [], NAMES)
        return config, policy, rewards, Episodes.from_config(config, policy.tuned, policy.buffers, "fp32")

    return make


def outcomes(setting, group):
    """Before and after of each image of a group that fits."""
    return side_by_side(list(enumerate(group)), partial(adapt_group, *setting))


def logits(setting, groups):
    """Before and after of all images, (5, 2, C)."""
    pairs = [pair for group in groups for pair in outcomes(setting, group)]
    return torch.stack([torch.stack(pair) for pair in pairs])


def in_groups(images, size):
    return [images[i : i + size] for i in range(0, len(images), size)]


@pytest.mark.parametrize(("tune", "kind"), TUNED)
@pytest.mark.parametrize("method", ["tpt", "rlcf", "kd", "dkd", "atkd"])
def test_several_images_at_once_have_the_answers_of_one_at_a_time(setting, images, tune, kind, method):
    alone = logits(setting(tune, kind, method), in_groups(images, 1))
    together = logits(setting(tune, kind, method, episodes=3), in_groups(images, 3))  # 3, then 2
    torch.testing.assert_close(together, alone, atol=5e-4, rtol=1e-4)
    assert ((alone[:, 1] - alone[:, 0]).abs().amax(dim=1) > 1e-2).sum() >= 3  # where scores do not all clamp to 0


def test_images_that_pass_a_tower_a_few_at_a_time_keep_their_own_layers(setting, images, monkeypatch):
    whole = logits(setting("norm", episodes=5), [images])
    monkeypatch.setattr("rlcf.clip.backbone.CACHED_PIXELS", 3 * 32 * 32)
    torch.testing.assert_close(logits(setting("norm", episodes=5), [images]), whole, atol=5e-4, rtol=1e-4)
    torch.testing.assert_close(logits(setting("norm"), in_groups(images, 1)), whole, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize("further", [{"batchnorm": "frozen"}, {"batchnorm": "published-norm"}, {"bn_prior": 4.0}])
def test_statistics_of_batchnorm_are_each_images_own(setting, images, further):
    alone = logits(setting("norm", "resnet", **further), in_groups(images, 1))
    together = logits(setting("norm", "resnet", episodes=2, **further), in_groups(images, 2))
    torch.testing.assert_close(together, alone, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "further",
    [{"baseline": "all", "divide_by_std": True}, {"entropy_weight": 1.0}, {"class_chunk": 2}, {"sample_k": 1}],
)
def test_objectives_are_each_images_own(setting, images, further):
    alone = logits(setting(**further), in_groups(images, 1))
    together = logits(setting(episodes=5, **further), [images])
    torch.testing.assert_close(together, alone, atol=5e-4, rtol=1e-4)


@pytest.mark.parametrize(("tune", "kind"), TUNED)
def test_the_weights_are_back_after_several_images(setting, images, tune, kind):
    config, policy, rewards, episodes = setting(tune, kind, episodes=3)
    before = {name: value.detach().clone() for name, value in {**policy.tuned, **policy.buffers}.items()}
    model = {name: value.clone() for name, value in policy.clip.model.state_dict().items()}
    outcomes((config, policy, rewards, episodes), images[:3])
    assert all(torch.equal(value, before[name]) for name, value in {**policy.tuned, **policy.buffers}.items())
    assert all(torch.equal(value, model[name]) for name, value in policy.clip.model.state_dict().items())


def test_only_normalisation_layers_get_gradients_for_several_images(setting, images):
    _, policy, *_ = setting("norm", "resnet", episodes=2, batchnorm="published-norm")
    policy.logits(policy.encode(torch.stack(images[:2]))).sum().backward()
    assert all(parameter.grad is not None for parameter in policy.tuned.values())
    assert not any(parameter.requires_grad for parameter in policy.clip.model.parameters())


def test_one_image_that_gives_nothing_finite_leaves_the_others_answers(setting, images, monkeypatch):
    alone = logits(setting(), in_groups(images[:3], 1))
    config, policy, rewards, episodes = setting(episodes=3)
    spoilt = policy.encode(images[1][None])[0]
    learnt_from = policy.logits

    def logits_of(features):
        found = learnt_from(features)
        of_the_spoilt = (features[..., :1, None, :] == spoilt).all(dim=-1).flatten(1).any(dim=-1)
        return torch.where(of_the_spoilt[:, None, None], torch.nan, found) if torch.is_grad_enabled() else found

    monkeypatch.setattr(policy, "logits", logits_of)
    pairs = outcomes((config, policy, rewards, episodes), images[:3])
    assert [after is None for _, after in pairs] == [False, True, False]
    for image in (0, 2):
        torch.testing.assert_close(pairs[image][1], alone[image, 1], atol=5e-4, rtol=1e-4)
    torch.testing.assert_close(pairs[1][0], alone[1, 0], atol=5e-4, rtol=1e-4)


def test_fp16_steps_that_overflow_are_left_out_of_that_images_episode_alone(setting, images):
    """With so large a loss of one image its first scaled step overflows; alone it goes on, and so it does here."""
    answers = []
    for count in (1, 2):
        config, policy, rewards, _ = setting(episodes=count, steps=3, entropy_weight=1e36)
        episodes = Episodes.from_config(config, policy.tuned, policy.buffers, "fp16")
        answers.append(logits((config, policy, rewards, episodes), in_groups(images[:2], count)))
    torch.testing.assert_close(answers[1], answers[0], atol=5e-4, rtol=1e-4)


def test_a_tower_that_is_shared_again_forgets_the_layers_of_several_images(setting, images):
    _, several, *_ = setting("norm", episodes=3)
    with torch.no_grad():
        for parameter in several.tuned.values():
            parameter.add_(1.0)
    features = torch.nn.functional.normalize(torch.randn(5, 16), dim=-1)
    views = images[0]
    moved = several.clip.encode_image(several.clip.prepare(views[:3]))
    policy = EncoderPolicy(several.clip, features, "norm")
    with torch.no_grad():
        assert not torch.allclose(policy.clip.encode_image(policy.encode(views[:3])), moved, atol=1e-2)
    fresh = setting("norm")[1]
    with torch.no_grad():
        torch.testing.assert_close(
            policy.clip.encode_image(policy.encode(views)), fresh.clip.encode_image(fresh.encode(views))
        )


def test_layers_that_are_not_clips_are_refused(setting, clip):
    student = clip("vit")
    student.model.visual.ln_pre = torch.nn.GroupNorm(1, 64)
    config = ClassificationConfig(tune="norm", episodes=2)
    with pytest.raises(UserError, match=r"--episodes above 1 does not know the GroupNorm of"):
        make_policy(config, student, NAMES)


# ---- views screened in bf16 ----


@pytest.mark.parametrize(
    ("tune", "kind", "episodes"),
    [
        ("prompt", "vit", 1),
        ("prompt", "vit", 2),
        ("image-encoder", "vit", 1),
        ("norm", "resnet", 1),
        ("norm", "resnet", 2),
    ],
)
def test_screened_views_are_confirmed_in_the_runs_own_precision(setting, images, tune, kind, episodes):
    further = {"episodes": episodes, "batchnorm": "frozen"}
    plain = logits(setting(tune, kind, **further), in_groups(images, episodes))
    config, policy, *rest = setting(tune, kind, select_precision="bf16", **further)
    seen = []
    confirm = policy.logits
    policy.logits = lambda encoded: seen.append(encoded.shape[-(2 if tune == "prompt" else 4)]) or confirm(encoded)
    screened = logits((config, policy, *rest), in_groups(images, episodes))
    torch.testing.assert_close(screened, plain, atol=5e-4, rtol=1e-4)
    assert seen[0] == 1 + 2 * 3  # of 8 views: the centre crop, and twice as many as are kept


def test_the_shortlist_is_the_centre_and_the_most_confident_in_bf16(setting, images):
    _, policy, *_ = setting("image-encoder")
    ranked = select_confident(policy.screen(images[0])[1:], 3) + 1
    assert torch.equal(shortlist(policy, images[0], 3), images[0][[0, *ranked.tolist()]])
    exact = policy.clip.logit_scale * policy.clip.encode_image(policy.encode(images[0])) @ policy.class_features.T
    difference = (policy.screen(images[0]) - exact).abs().max()
    assert 1e-6 < difference < 0.5


def test_views_that_share_statistics_are_not_screened(setting):
    with pytest.raises(UserError, match=r"--select-precision bf16 leaves out views .*use --batchnorm frozen"):
        setting("norm", "resnet", select_precision="bf16")


def test_few_views_are_not_screened(setting, images, monkeypatch):
    config, policy, *rest = setting("image-encoder", select_precision="bf16", selection=1.0, views=1)
    monkeypatch.setattr(policy, "screen", None)
    assert shortlist(policy, images[0][:3], 2) is not None
    before, after = adapt(config, policy, *rest, images[0][:1])
    assert before.shape == after.shape == (6,)
