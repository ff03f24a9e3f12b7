from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from torch import nn
from transformers import BertConfig

from rlcf.clip.tuning import (
    PriorBatchNorm,
    image_tower_parameters,
    layers_replaced,
    normalisation_layers,
    norms_per_sample,
    requiring_gradients,
    text_tower_parameters,
)
from rlcf.errors import UserError
from tests.tools import RESNET, SIGLIP_TEXT, as_clip, build_clip, copied, same


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(params=["built in", "of its own"])
def clip(request):
    """A CLIP whose text tower is built into it, and one that has it on its own."""
    if request.param == "built in":
        return as_clip(build_clip(vision=RESNET))
    return as_clip(build_clip(open_clip.CustomTextCLIP, text=SIGLIP_TEXT, init_logit_bias=-10.0))


@pytest.fixture
def resnet():
    return as_clip(build_clip(vision=RESNET))


# ---- the choice of parameters ----


def test_the_image_tower_has_its_parameters_by_their_names_in_it(clip):
    chosen = image_tower_parameters(clip, only_norm=False)
    parameters = dict(clip.model.visual.named_parameters())
    assert chosen.keys() == parameters.keys() and all(chosen[name] is parameters[name] for name in chosen)


def test_the_text_tower_leaves_embeddings_and_scales(clip):
    chosen = text_tower_parameters(clip, only_norm=False)
    parameters = dict(clip.model.named_parameters())
    assert all(chosen[name] is parameters[name] for name in chosen)
    left = {name for name in parameters if not name.startswith("visual.")} - chosen.keys()
    known = {"token_embedding.weight", "logit_scale", "logit_bias"}
    assert left == {name for name in parameters if name.removeprefix("text.") in known}
    everything = text_tower_parameters(clip, only_norm=False, embeddings=True)
    assert everything.keys() == chosen.keys() | left


def test_norm_means_the_parameters_of_the_normalisation_layers(clip):
    layers = {name for name, _ in normalisation_layers(clip.model)}
    text = {name.rpartition(".")[0] for name in text_tower_parameters(clip, only_norm=True)}
    image = {f"visual.{name}".rpartition(".")[0] for name in image_tower_parameters(clip, only_norm=True)}
    assert text and image and text == {name for name in layers if not name.startswith("visual.")}
    assert image == layers - text


def test_left_out_parameters_are_not_chosen(resnet):
    kept = image_tower_parameters(resnet, only_norm=True, leave_out=lambda name: "downsample" in name)
    whole = image_tower_parameters(resnet, only_norm=True)
    assert kept and whole.keys() - kept.keys() == {name for name in whole if "downsample" in name} != set()


def test_choosing_changes_nothing(clip):
    before = learning(clip.model), copied(clip.model), list(clip.model.modules())
    image_tower_parameters(clip, only_norm=False)
    text_tower_parameters(clip, only_norm=True)
    assert learning(clip.model) == before[0] == set() and same(copied(clip.model), before[1])
    assert list(clip.model.modules()) == before[2]


def test_a_tower_without_normalisation_layers_is_named():
    model = SimpleNamespace(visual=nn.Linear(2, 2))
    with pytest.raises(UserError, match="the image tower of tiny has no normalisation layers to tune"):
        image_tower_parameters(as_clip(model), only_norm=True)


def test_the_word_embeddings_of_a_hugging_face_tower_are_left():
    model = nn.Module()
    model.visual, model.logit_scale = nn.Linear(2, 2), nn.Parameter(torch.ones([]))
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model.text = HFTextEncoder("bert", 4, config=config, pretrained=False)
    clip = as_clip(model)
    chosen, everything = text_tower_parameters(clip, False), text_tower_parameters(clip, False, embeddings=True)
    assert everything.keys() - chosen.keys() == {"logit_scale", "text.transformer.embeddings.word_embeddings.weight"}
    assert all(name.startswith("text.") for name in chosen)


# ---- changes that hold within `with` ----


class Broken(Exception):
    pass


@pytest.mark.parametrize("breaks", [False, True])
def test_parameters_require_gradients_within_and_what_they_required_before_after_it(clip, breaks):
    parameters = image_tower_parameters(clip, only_norm=True)
    already = next(iter(parameters.values())).requires_grad_(True)
    before = learning(clip.model)
    try:
        with requiring_gradients(parameters.values()):
            assert learning(clip.model) == {f"visual.{name}" for name in parameters}
            sum(parameter.sum() for parameter in parameters.values()).backward()
            if breaks:
                raise Broken
    except Broken:
        pass
    assert learning(clip.model) == before and already.requires_grad
    assert all(parameter.grad is None for parameter in parameters.values())


@pytest.mark.parametrize("breaks", [False, True])
def test_layers_are_replaced_within_and_the_towers_own_ones_are_back_after_it(resnet, breaks):
    tower = resnet.model.visual
    before, state = dict(tower.named_modules()), copied(tower)
    others = {name: nn.Identity() for name, layer in before.items() if isinstance(layer, nn.BatchNorm2d)}
    try:
        with layers_replaced(tower, others):
            assert len(others) == 19 and all(tower.get_submodule(name) is layer for name, layer in others.items())
            if breaks:
                raise Broken
    except Broken:
        pass
    after = dict(tower.named_modules())
    assert after.keys() == before.keys() and all(after[name] is layer for name, layer in before.items())
    assert same(copied(tower), state)


def test_no_layers_to_replace_change_nothing(resnet):
    before = dict(resnet.model.visual.named_modules())
    with layers_replaced(resnet.model.visual, {}):
        assert dict(resnet.model.visual.named_modules()) == before


# ---- normalisation layers of other kinds ----


@pytest.fixture
def batchnorm():
    layer = nn.BatchNorm2d(4)
    for tensor, low, high in ((layer.weight, 0.5, 1.5), (layer.bias, -1, 1), (layer.running_mean, -1, 1)):
        nn.init.uniform_(tensor, low, high)
    nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return layer.eval().requires_grad_(False)


def by_hand(layer, x, mean, var):
    shape = (1, -1, 1, 1)
    normalised = (x - mean.view(shape)) / (var.view(shape) + layer.eps).sqrt()
    return normalised * layer.weight.view(shape) + layer.bias.view(shape)


def test_the_statistics_prior_by_hand(batchnorm):
    layer, x = PriorBatchNorm(batchnorm, 16.0), torch.randn(6, 4, 5, 5) * 3 + 1
    before = copied(batchnorm)
    assert torch.equal(layer(x), batchnorm(x))  # outside of training: the stored statistics
    mean = 16 / 17 * batchnorm.running_mean + 1 / 17 * x.mean(dim=(0, 2, 3))
    var = 16 / 17 * batchnorm.running_var + 1 / 17 * x.var(dim=(0, 2, 3))
    torch.testing.assert_close(layer.train()(x), by_hand(batchnorm, x, mean, var), atol=1e-5, rtol=1e-5)
    assert same(copied(batchnorm), before)


def test_gradients_do_not_see_the_mixed_statistics(batchnorm):
    x = torch.randn(6, 4, 5, 5).requires_grad_()
    (slope,) = torch.autograd.grad(PriorBatchNorm(batchnorm, 2.0).train()(x).sum(), x)
    var = 2 / 3 * batchnorm.running_var + 1 / 3 * x.detach().var(dim=(0, 2, 3))
    expected = (batchnorm.weight / (var + batchnorm.eps).sqrt()).view(1, -1, 1, 1).expand_as(x)
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("prior", [0.0, 3.0])
def test_layers_of_several_samples_give_each_what_a_layer_of_its_own_gives(resnet, prior):
    tower, samples = resnet.model.visual, 3
    layers = norms_per_sample(resnet, samples, prior)
    assert layers.keys() == {name for name, _ in normalisation_layers(tower)}
    for name in ("bn1", "layer1.0.downsample.1"):
        own, made = tower.get_submodule(name), layers[name]
        x = torch.randn(samples * 4, own.num_features, 3, 3)
        torch.testing.assert_close(made(x), own(x), atol=1e-5, rtol=1e-5)
        alone = PriorBatchNorm(own, prior).train() if prior else build_batchnorm(own)
        expected = torch.cat([alone(part) for part in x.split(4)])
        torch.testing.assert_close(made.train()(x), expected, atol=1e-5, rtol=1e-5)


def build_batchnorm(layer):
    """A copy in training mode."""
    copy = nn.BatchNorm2d(layer.num_features)
    copy.load_state_dict(layer.state_dict())
    return copy.train()


def test_a_layernorm_of_several_samples_scales_and_shifts_each_on_its_own():
    clip = as_clip(build_clip())
    layer = norms_per_sample(clip, 2)["ln_pre"]
    own, x = clip.model.visual.ln_pre, torch.randn(6, 5, 64)
    torch.testing.assert_close(layer(x), own(x))
    with torch.no_grad():
        layer.weight[:64] *= 2.0
        layer.bias[64:] += 1.0
    scaled = own.bias + 2.0 * (own(x[:3]) - own.bias)
    torch.testing.assert_close(layer(x), torch.cat([scaled, own(x[3:]) + 1.0]))


def test_layers_of_several_samples_leave_the_models_own_parameters_alone(resnet):
    own = set(resnet.model.parameters())
    parameters = [parameter for layer in norms_per_sample(resnet, 2).values() for parameter in layer.parameters()]
    assert parameters and not own & set(parameters)
    assert not any(parameter.requires_grad for parameter in parameters)


def test_layers_that_are_not_clips_are_refused(resnet):
    resnet.model.visual.bn1 = nn.GroupNorm(1, 64)
    with pytest.raises(UserError, match=r"GroupNorm of tiny .*one"):
        norms_per_sample(resnet, 2)
