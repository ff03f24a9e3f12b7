from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from torch import nn
from transformers import BertConfig

from rlcf.clip.backbone import Backbone
from rlcf.clip.tuning import normalisation_layers, tune_image_tower, tune_text_tower
from rlcf.errors import UserError

from .conftest import RESNET, SIGLIP_TEXT

PREPROCESS = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def as_clip(model):
    return Backbone("tiny", model, None, PREPROCESS, torch.device("cpu"))


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.fixture(params=["built in", "of its own"])
def clip(request, build):
    """A CLIP whose text tower is built into it, and one that has it on its own."""
    if request.param == "built in":
        return as_clip(build(vision=RESNET))
    return as_clip(build(open_clip.CustomTextCLIP, text=SIGLIP_TEXT, init_logit_bias=-10.0))


def test_a_tuned_image_tower_is_all_that_requires_gradients(clip):
    tuned = tune_image_tower(clip, only_norm=False)
    assert tuned.keys() == dict(clip.model.visual.named_parameters()).keys()
    assert learning(clip.model) == {f"visual.{name}" for name in tuned}


def test_a_tuned_text_tower_leaves_embeddings_and_scales(clip):
    clip.model.requires_grad_(True)
    tuned = tune_text_tower(clip, only_norm=False)
    assert learning(clip.model) == tuned.keys()
    left = {name for name, _ in clip.model.named_parameters() if not name.startswith("visual.")} - tuned.keys()
    assert {name.rpartition(".")[2] if "logit" in name else name.removeprefix("text.") for name in left} <= {
        "token_embedding.weight",
        "logit_scale",
        "logit_bias",
    }
    everything = tune_text_tower(clip, only_norm=False, embeddings=True)
    assert everything.keys() == tuned.keys() | left


def test_the_other_tower_is_frozen_when_the_tower_changes(clip):
    tune_image_tower(clip, only_norm=False)
    tuned = tune_text_tower(clip, only_norm=False)
    assert learning(clip.model) == tuned.keys() and not any(name.startswith("visual.") for name in tuned)


def test_norm_tunes_the_normalisation_layers_alone(clip):
    image, text = tune_image_tower(clip, only_norm=True), tune_text_tower(clip, only_norm=True)
    layers = {name for name, _ in normalisation_layers(clip.model)}
    assert {name.rpartition(".")[0] for name in text} == {name for name in layers if not name.startswith("visual.")}
    visual = {name.removeprefix("visual.") for name in layers if name.startswith("visual.")}
    assert {name.rpartition(".")[0] for name in image} == visual
    assert learning(clip.model) == text.keys()


def test_left_out_parameters_stay_as_they_are(build):
    clip = as_clip(build(vision=RESNET))
    tuned = tune_image_tower(clip, only_norm=True, leave_out=lambda name: "downsample" in name)
    assert tuned and not any("downsample" in name for name in learning(clip.model))
    assert any("downsample" in name for name in tune_image_tower(clip, only_norm=True))


def test_a_tower_without_normalisation_layers_is_named():
    model = SimpleNamespace(visual=nn.Linear(2, 2))
    with pytest.raises(UserError, match="the image tower of tiny has no normalisation layers to tune"):
        tune_image_tower(as_clip(model), only_norm=True)


def test_the_word_embeddings_of_a_hugging_face_tower_are_left(tmp_path):
    model = nn.Module()
    model.visual, model.logit_scale = nn.Linear(2, 2), nn.Parameter(torch.ones([]))
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model.text = HFTextEncoder("bert", 4, config=config, pretrained=False)
    clip = as_clip(model)
    tuned, everything = tune_text_tower(clip, False), tune_text_tower(clip, False, embeddings=True)
    assert everything.keys() - tuned.keys() == {"logit_scale", "text.transformer.embeddings.word_embeddings.weight"}
    assert all(name.startswith("text.") for name in tuned)
