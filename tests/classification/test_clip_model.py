import pytest
import torch
import torch.nn.functional as F
from open_clip import OPENAI_IMAGENET_TEMPLATES
from torch import nn

from classification.clip_model import EncoderPolicy, PromptPolicy, class_features, initial_context, read_coop
from classification.config import ClassificationConfig
from classification.main import adapt
from classification.reward import Rewards
from rlcf.adapt.episode import Episodes
from rlcf.clip.backbone import load_clip
from rlcf.clip.prompted_text import PromptedText, TextTower, prompt_text
from rlcf.errors import UserError

NAMES = ["dog", "sea lion", "pizza", "sports car", "owl"]
PROMPT = "a photo of a"
METHODS = ("tpt", "rlcf", "kd", "dkd", "atkd")
VITS = [("prompt", "vit"), ("image-encoder", "vit"), ("norm", "vit")]
POLICIES = [*VITS, ("image-encoder", "resnet"), ("norm", "resnet")]


@pytest.fixture
def views():
    """(10, 3, 32, 32), uint8."""
    return torch.randint(0, 256, (10, 3, 32, 32), dtype=torch.uint8)


@pytest.fixture
def setup(clip):
    """A config, a policy, rewards and episodes as the entry script puts them together."""

    def make(tune="prompt", kind="vit", method="rlcf", **settings):
        settings = {"lr": 1e-2, "steps": 2, "selection": 0.4, **settings}
        config = ClassificationConfig(method=method, tune=tune, **settings)
        student = clip(kind)
        if tune == "prompt":
            policy = PromptPolicy(student, NAMES, initial_context(student, "words", 4, PROMPT, seed=0))
        else:
            features = class_features(student, NAMES, PROMPT)
            policy = EncoderPolicy(student, features, tune, config.batchnorm, config.bn_prior)
        rewards = None if method == "tpt" else Rewards([clip("resnet")], NAMES, PROMPT, [1.0])
        return config, policy, rewards, Episodes.from_config(config, policy.tuned, policy.buffers, "fp32")

    return make


def weights(policy):
    """Everything that a model has, copied."""
    context = {"context": policy.context} if isinstance(policy, PromptPolicy) else {}
    return {name: tensor.clone() for name, tensor in {**policy.clip.model.state_dict(), **context}.items()}


def changed(before, after):
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def at_each_answer(policy):
    """The weights that answer: before the steps of an episode, and after them."""
    seen = []

    def watched(forward):
        return lambda encoded: seen.append(weights(policy)) or forward(encoded)

    policy.zero_shot, policy.answer = watched(policy.zero_shot), watched(policy.answer)
    return seen


# ---- the context ----


def test_words_start_the_context_from_their_embeddings(clip):
    student = clip("vit")
    context = initial_context(student, "words", 99, PROMPT, seed=0)
    ids = student.tokenizer.encode(PROMPT)
    assert torch.equal(context, student.model.token_embedding.weight[ids]) and context.shape == (4, 64)
    assert not context.requires_grad


def test_underscores_in_the_words_of_the_context_are_spaces(clip):
    student = clip("vit")
    contexts = [initial_context(student, "words", 4, prompt, 0) for prompt in ("a_photo_of_a", PROMPT)]
    assert torch.equal(*contexts)


def test_a_random_context_is_decided_by_the_seed(clip):
    student = clip("vit")
    first, again, other = (initial_context(student, "random", 16, PROMPT, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (16, 64) and 0.015 < first.std() < 0.025 and abs(first.mean()) < 0.005


@pytest.mark.parametrize("prompt", ["", "   "])
def test_a_context_without_words_is_told(clip, prompt):
    with pytest.raises(UserError, match=r"--prompt has no words to start the context from; use --context random"):
        initial_context(clip("vit"), "words", 4, prompt, 0)


COOP = {"ctx": torch.randn(4, 64), "token_prefix": torch.zeros(5, 1, 64), "token_suffix": torch.zeros(5, 72, 64)}


@pytest.mark.parametrize(
    "place",
    ["ctx.pth.tar", "prompt_learner/model.pth.tar-50", "prompt_learner/model-best.pth.tar", "model-best.pth.tar"],
)
def test_the_context_of_a_coop_checkpoint_is_read_from_its_file_and_its_folder(clip, tmp_path, place):
    file = tmp_path / "coop" / place
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": COOP, "epoch": 50, "optimizer": {}, "val_result": None}, file)
    given = [file] if place == "ctx.pth.tar" else [file, tmp_path / "coop"]
    for path in given:
        context = initial_context(clip("vit"), str(path), 99, PROMPT, 0)
        assert torch.equal(context, COOP["ctx"]) and context.dtype == torch.float32


def test_a_coop_context_in_half_precision_or_of_other_length_is_read(tmp_path):
    torch.save({"ctx": torch.ones(16, 64).half()}, tmp_path / "c.pt")
    context = read_coop(tmp_path / "c.pt", 64)
    assert context.shape == (16, 64) and context.dtype == torch.float32


def test_a_coop_context_of_another_width_is_told_with_both(tmp_path):
    torch.save({"state_dict": {"ctx": torch.ones(4, 512)}}, tmp_path / "c.pt")
    with pytest.raises(UserError) as error:
        read_coop(tmp_path / "c.pt", 64)
    assert str(error.value).startswith(
        f"the CoOp context of {tmp_path / 'c.pt'} is 512 wide, the student's text tower 64"
    )


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"state_dict": 3},
        {"ctx": [1.0]},
        [1],
        torch.ones(4, 64),
        {"state_dict": {"ctx": torch.ones(5, 4, 64)}},
        {"state_dict": {"ctx": torch.ones(64)}},
    ],
)
def test_a_file_that_is_no_coop_checkpoint_is_told(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"c.pt is no CoOp checkpoint: it needs state_dict\['ctx'\] of shape"):
        read_coop(tmp_path / "c.pt", 64)


def test_a_folder_without_a_coop_checkpoint_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(UserError, match=r"is no CoOp checkpoint folder; it needs prompt_learner/model.pth.tar-50 or"):
        read_coop(tmp_path, 64)
    with pytest.raises(UserError, match=r"gone.pt"):
        read_coop(tmp_path / "gone.pt", 64)


# ---- prompt tuning ----


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_prompted_class_has_the_features_of_its_text(clip, views, position):
    student = clip("vit")
    policy = PromptPolicy(student, NAMES, initial_context(student, "words", 4, PROMPT, 0), position)
    texts = student.encode_text([prompt_text(PROMPT, name, position) for name in NAMES])
    with torch.no_grad():
        images = student.encode_image(student.prepare(views))
        expected = student.logit_scale * images @ texts.T
        torch.testing.assert_close(policy.logits(policy.encode(views)), expected, atol=1e-4, rtol=0)
    assert {prompt_text(PROMPT, "sea lion", p) for p in ("end", "middle", "front")} == {
        "a photo of a sea lion.",
        "a photo sea lion of a.",
        "sea lion a photo of a.",
    }


def test_the_class_name_stands_where_it_is_said(clip):
    student = clip("vit")
    context = initial_context(student, "words", 4, PROMPT, 0)
    slots = {
        position: PromptPolicy(student, ["dog"], context, position).prompts.slots[0].tolist()
        for position in ("end", "middle", "front")
    }
    assert slots == {  # start, ... , ".", end of text
        "end": [-1, 0, 1, 2, 3, -1, -1, -1],
        "middle": [-1, 0, 1, -1, 2, 3, -1, -1],
        "front": [-1, -1, 0, 1, 2, 3, -1, -1],
    }


def test_a_context_of_any_length_keeps_the_class_names(clip, views):
    student = clip("vit")
    for n_ctx in (1, 3, 16):
        policy = PromptPolicy(student, NAMES, torch.randn(n_ctx, 64))
        assert policy.logits(policy.encode(views)).shape == (10, 5)


def test_a_context_that_does_not_fit_is_told_with_the_class(clip):
    with pytest.raises(UserError, match=r"80 context tokens and the class name 'dog' exceed 77 tokens"):
        PromptPolicy(clip("vit"), NAMES, torch.randn(80, 64))


def test_prompt_and_image_tower_policies_agree_before_any_step(setup, views):
    answers = []
    for tune in ("prompt", "image-encoder", "norm"):
        _, policy, _, _ = setup(tune)
        with torch.no_grad():
            answers.append(policy.answer(policy.encode(views)))
    torch.testing.assert_close(answers[0], answers[1], atol=1e-4, rtol=0)
    assert torch.equal(answers[1], answers[2])


def test_a_text_tower_that_takes_no_embeddings_is_told(clip, monkeypatch):
    monkeypatch.setattr(TextTower, "__init__", lambda *_: (_ for _ in ()).throw(TypeError))
    student = clip("vit")
    with pytest.raises(UserError, match=r"cannot be driven by embeddings; use --tune image-encoder"):
        initial_context(student, "words", 4, PROMPT, 0)
    with pytest.raises(UserError, match=r"cannot be driven by embeddings; use --tune image-encoder"):
        PromptPolicy(student, NAMES, COOP["ctx"])


def test_the_class_features_of_one_context_are_computed_once_without_a_graph(setup, views, monkeypatch):
    _, policy, _, _ = setup("prompt")
    passes = []
    forward = PromptedText.__call__
    monkeypatch.setattr(PromptedText, "__call__", lambda *a: passes.append(torch.is_grad_enabled()) or forward(*a))
    features = policy.encode(views)
    with torch.no_grad():
        first = policy.logits(features)
        assert torch.equal(policy.zero_shot(features), first) and passes == [False]
        policy.context.add_(0.1)
        assert not torch.equal(policy.answer(features), first) and passes == [False] * 2
    policy.logits(features)
    assert passes == [False, False, True]


def test_an_answer_in_between_does_not_make_the_starting_class_features_forgotten(setup, views, monkeypatch):
    _, policy, _, _ = setup("prompt")
    passes = []
    forward = PromptedText.__call__
    monkeypatch.setattr(PromptedText, "__call__", lambda *a: passes.append(1) or forward(*a))
    features, start = policy.encode(views), policy.context.detach().clone()
    with torch.no_grad():
        first = policy.zero_shot(features)
        policy.context.add_(0.1)
        policy.answer(features)
        policy.context.copy_(start)
        assert torch.equal(policy.zero_shot(features), first) and len(passes) == 2


# ---- the image tower ----


def norm_parameters(model):
    """Found by type, not by the project's own function."""
    kinds = (nn.LayerNorm, nn.BatchNorm2d)
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]
    return {f"visual.{name}.{leaf}" for name, layer in layers for leaf in ("weight", "bias")}


@pytest.mark.parametrize(("kind", "count"), [("vit", 2 * (2 * 2 + 2)), ("resnet", 2 * (3 + 4 * (3 + 1)))])
@pytest.mark.parametrize("method", ["tpt", "rlcf"])
def test_norm_tuning_changes_all_normalisation_layers_and_nothing_else(setup, views, kind, count, method):
    config, policy, rewards, episodes = setup("norm", kind, method, batchnorm="frozen", weight_decay=0.1)
    expected = norm_parameters(policy.visual)
    assert len(expected) == count and any("downsample" in name for name in expected) == (kind == "resnet")
    before, seen = weights(policy), at_each_answer(policy)
    adapt(config, policy, rewards, episodes, views)
    assert changed(before, seen[0]) == set() and changed(before, seen[-1]) == expected
    assert {"visual." + name for name, p in policy.visual.named_parameters() if p.requires_grad} == expected


def test_published_norm_tuning_leaves_the_downsample_branches(setup, views):
    _, policy, _, _ = setup("norm", "resnet", batchnorm="published-norm")
    tuned = {"visual." + name for name, p in policy.visual.named_parameters() if p.requires_grad}
    assert tuned == {name for name in norm_parameters(policy.visual) if "downsample" not in name}


def test_published_norm_tuning_answers_with_the_statistics_of_the_image_and_zero_shot_does_not(setup, views):
    _, published, _, _ = setup("norm", "resnet", batchnorm="published-norm")
    _, sane, _, _ = setup("norm", "resnet")
    with torch.no_grad():
        pixels = sane.encode(views[:1])
        assert torch.equal(published.zero_shot(pixels), sane.zero_shot(pixels))
        assert (published.answer(pixels) - sane.answer(pixels)).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_image_tower_tuning_changes_the_whole_image_tower_and_nothing_else(setup, views, kind):
    config, policy, rewards, episodes = setup("image-encoder", kind, batchnorm="frozen", weight_decay=0.1)
    before, seen = weights(policy), at_each_answer(policy)
    adapt(config, policy, rewards, episodes, views)
    assert changed(before, seen[-1]) == {"visual." + name for name, _ in policy.visual.named_parameters()}


def test_prompt_tuning_changes_the_context_and_nothing_else(setup, views):
    config, policy, rewards, episodes = setup("prompt")
    before, seen = weights(policy), at_each_answer(policy)
    adapt(config, policy, rewards, episodes, views)
    assert changed(before, seen[-1]) == {"context"}


@pytest.mark.parametrize("batchnorm", ["batch", "frozen"])
def test_a_resnets_answer_does_not_depend_on_the_other_views(setup, views, batchnorm):
    _, policy, _, _ = setup("image-encoder", "resnet", batchnorm=batchnorm)
    with torch.no_grad():
        pixels = policy.encode(views)
        torch.testing.assert_close(policy.answer(pixels)[:1], policy.answer(pixels[:1]), atol=1e-4, rtol=0)
        learnt = policy.logits(pixels)[:4], policy.logits(pixels[:4])
    same = (learnt[0] - learnt[1]).abs().max() < 1e-4
    assert same == (batchnorm == "frozen") and policy.views_interact == (batchnorm == "batch")


def test_batch_statistics_move_while_tuning_and_frozen_ones_do_not(setup, views):
    for batchnorm in ("batch", "frozen"):
        config, policy, rewards, episodes = setup("norm", "resnet", batchnorm=batchnorm)
        before, seen = weights(policy), at_each_answer(policy)
        adapt(config, policy, rewards, episodes, views)
        moved = {name for name in changed(before, seen[-1]) if "running" in name or "num_batches" in name}
        assert bool(moved) == (batchnorm == "batch")


def test_the_statistics_prior_by_hand(setup):
    _, policy, _, _ = setup("image-encoder", "resnet", bn_prior=16.0)
    layer = policy.visual.bn1.train()
    x = torch.randn(6, layer.num_features, 5, 5) * 3 + 1
    mean = 16 / 17 * layer.running_mean + 1 / 17 * x.mean(dim=(0, 2, 3))
    var = 16 / 17 * layer.running_var + 1 / 17 * x.var(dim=(0, 2, 3))
    shape = (1, -1, 1, 1)
    expected = (x - mean.view(shape)) / (var.view(shape) + layer.eps).sqrt()
    expected = expected * layer.weight.view(shape) + layer.bias.view(shape)
    before = layer.running_mean.clone(), layer.running_var.clone()
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(layer.running_mean, before[0]) and torch.equal(layer.running_var, before[1])


def test_a_strong_prior_is_the_stored_statistics_and_a_weak_one_the_batchs(setup, views):
    def logits(**settings):
        _, policy, _, _ = setup("image-encoder", "resnet", **settings)
        with torch.no_grad():
            return policy.logits(policy.encode(views))

    stored, batch = logits(batchnorm="frozen"), logits()
    torch.testing.assert_close(logits(bn_prior=1e7), stored, atol=1e-3, rtol=0)
    torch.testing.assert_close(logits(bn_prior=1e-7), batch, atol=0.1, rtol=0)  # but for Bessel's correction
    assert min((logits(bn_prior=1.0) - other).abs().max() for other in (stored, batch)) > 0.5


@pytest.mark.parametrize("tune", ["image-encoder", "norm"])
def test_a_statistics_prior_is_for_tuning_and_the_stored_statistics_answer(setup, views, tune):
    config, policy, rewards, episodes = setup(tune, "resnet", bn_prior=1.0)
    _, plain, _, _ = setup(tune, "resnet")
    before, seen = weights(policy), at_each_answer(policy)
    zero_shot, adapted = adapt(config, policy, rewards, episodes, views)
    with torch.no_grad():
        torch.testing.assert_close(zero_shot, plain.zero_shot(plain.encode(views[:1]))[0], atol=1e-4, rtol=0)
    assert (adapted - zero_shot).abs().max() > 1e-3 and changed(before, weights(policy)) == set()
    assert not any("running" in name for name in changed(before, seen[-1]))


def test_a_statistics_prior_reaches_every_batchnorm_of_every_dataset(clip, views):
    student = clip("resnet")
    features = class_features(student, NAMES, PROMPT)
    first, second = (EncoderPolicy(student, features, bn_prior=4.0) for _ in range(2))
    layers = [layer for layer in student.model.visual.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(layers) == 19 and {layer.prior for layer in layers} == {4.0}
    with torch.no_grad():
        assert torch.equal(first.logits(first.encode(views)), second.logits(second.encode(views)))


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


# ---- an image's episode ----


@pytest.mark.parametrize(("tune", "kind"), POLICIES)
@pytest.mark.parametrize("method", METHODS)
def test_an_episode_changes_the_answer_and_puts_every_weight_back(setup, views, tune, kind, method):
    config, policy, rewards, episodes = setup(tune, kind, method)
    before = weights(policy)
    zero_shot, adapted = adapt(config, policy, rewards, episodes, views)
    assert changed(before, weights(policy)) == set()
    with torch.no_grad():
        assert torch.equal(policy.answer(policy.encode(views)[:1])[0], zero_shot)
    assert zero_shot.shape == adapted.shape == (5,) and (zero_shot - adapted).abs().max() > 1e-3
    again = adapt(config, policy, rewards, episodes, views)
    assert torch.equal(again[0], zero_shot) and torch.equal(again[1], adapted)


@pytest.fixture
def passes(monkeypatch):
    """What is asked of a policy: (what, number of views, whether it carries a graph)."""
    seen = []

    def watch(policy):
        for name in ("logits", "zero_shot", "answer"):
            function = getattr(policy, name)

            def wrapped(encoded, name=name, function=function):
                result = function(encoded)
                seen.append((name, len(encoded), result.requires_grad))
                return result

            monkeypatch.setattr(policy, name, wrapped)
        return seen

    return watch


@pytest.mark.parametrize(("tune", "kind"), [*VITS, ("norm", "resnet")])
def test_only_the_views_that_are_learnt_from_carry_a_graph(setup, views, passes, tune, kind):
    batchnorm = {"batchnorm": "frozen"} if kind == "resnet" else {}
    config, policy, rewards, episodes = setup(tune, kind, **batchnorm)
    seen = passes(policy)
    adapt(config, policy, rewards, episodes, views)
    learning = [("logits", 4, True)] * config.steps
    assert seen == [("zero_shot", 1, False), ("logits", 10, False), *learning, ("answer", 1, False)]


def test_views_that_share_batch_statistics_are_learnt_from_in_the_pass_that_ranks_them(setup, views, passes):
    config, policy, rewards, episodes = setup("norm", "resnet")
    seen = passes(policy)
    adapt(config, policy, rewards, episodes, views)
    assert seen == [("zero_shot", 1, False), ("logits", 10, True), ("logits", 4, True), ("answer", 1, False)]


def count_images(clip, counts, name, monkeypatch):
    encode = clip._image_features
    monkeypatch.setitem(vars(clip), "_image_features", lambda x: counts.append((name, len(x))) or encode(x))


def test_frozen_towers_see_an_image_once(setup, views, monkeypatch):
    config, policy, rewards, episodes = setup("prompt", steps=3)
    counts = []
    count_images(policy.clip, counts, "student", monkeypatch)
    count_images(rewards.clips[0], counts, "reward", monkeypatch)
    monkeypatch.setattr(rewards.clips[0].model, "encode_text", None)
    adapt(config, policy, rewards, episodes, views)
    assert counts == [("student", 10), ("reward", 4)]


def test_the_reward_model_sees_the_most_confident_views(setup, views, monkeypatch):
    config, policy, rewards, episodes = setup("image-encoder")
    seen = []
    see = rewards.see
    monkeypatch.setattr(rewards, "see", lambda kept: seen.append(kept) or see(kept))
    with torch.no_grad():
        logits = policy.logits(policy.encode(views))
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    adapt(config, policy, rewards, episodes, views)
    assert len(seen) == 1 and torch.equal(seen[0], views[entropy.argsort()[:4]])


def test_zero_shot_asks_for_the_centre_view_alone(setup, views, passes):
    config, policy, _, episodes = setup("image-encoder", method="zeroshot")
    seen = passes(policy)
    before, after = adapt(config, policy, None, episodes, views[:1])
    assert before is after and seen == [("zero_shot", 1, False)]


@pytest.mark.parametrize("tune", ["prompt", "image-encoder", "norm"])
@pytest.mark.parametrize("where", ["loss", "answer"])
def test_what_is_not_finite_keeps_the_zero_shot_answer(setup, views, tune, where, monkeypatch):
    config, policy, rewards, episodes = setup(tune)
    before = weights(policy)
    expected, _ = adapt(config, policy, rewards, episodes, views)
    name = {"loss": "logits", "answer": "answer"}[where]
    function = getattr(policy, name)
    monkeypatch.setattr(policy, name, lambda encoded: function(encoded) * torch.nan)
    zero_shot, adapted = adapt(config, policy, rewards, episodes, views)
    assert adapted is None and episodes.non_finite == 1
    assert torch.equal(zero_shot, expected) and changed(before, weights(policy)) == set()


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_with_momentum_the_zero_shot_answer_is_still_the_loaded_models(setup, views, tune):
    config, policy, rewards, episodes = setup(tune, momentum=True, momentum_every=1, momentum_decay=0.5)
    pairs = [adapt(config, policy, rewards, episodes, views) for _ in range(3)]
    assert torch.equal(pairs[0][0], pairs[1][0]) and torch.equal(pairs[0][0], pairs[2][0])
    assert not torch.equal(pairs[0][1], pairs[1][1])


def test_a_class_text_that_would_be_cut_is_refused():
    with pytest.raises(UserError, match="no room for 'a photo of a dog dog"):
        class_features(load_clip("demo-student"), ["cat", "dog " * 40], "a photo of a")
