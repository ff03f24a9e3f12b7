"""Checkpoints whose architecture, and with it the activation, is named or asked for."""

import argparse
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F

from rlcf.clip import checkpoints
from rlcf.clip.architectures import architectures_of
from rlcf.clip.loading import load_clip
from rlcf.errors import UserError
from tests.tools import OPENAI_TEXT, SIGLIP_TEXT, VIT, build_clip

TINY = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": OPENAI_TEXT}
"""An architecture that is small enough for tests, as open_clip describes one."""


@pytest.fixture(autouse=True)
def named(monkeypatch):
    """open_clip knows "ViT-Tiny", and "Tiny-SigLIP" with a text tower of its own."""
    custom = {"embed_dim": 16, "custom_text": True, "init_logit_bias": -10, "vision_cfg": VIT}
    custom["text_cfg"] = OPENAI_TEXT | {key: SIGLIP_TEXT[key] for key in ("no_causal_mask", "proj_bias", "pool_type")}
    known = {"ViT-Tiny": TINY, "Tiny-SigLIP": custom}
    original = open_clip.get_model_config
    monkeypatch.setattr(open_clip, "list_models", lambda: [*known, "ViT-B-16"])
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: known.get(name) or original(name))
    monkeypatch.setattr(open_clip.tokenizer, "_MODEL_CONFIGS", known, raising=False)
    monkeypatch.setattr(checkpoints, "load_tokenizer", lambda name, text_cfg: open_clip.SimpleTokenizer())


@pytest.fixture
def saved(tmp_path):
    """Writes what torch.save is given; returns the file's name."""

    def write(held, name="epoch_10.pt"):
        torch.save(held, tmp_path / name)
        return str(tmp_path / name)

    return write


def features(clip):
    torch.manual_seed(7)
    return clip.encode_image(torch.randn(2, 3, 32, 32))


def assert_of(clip, model):
    """The features are the model's."""
    torch.manual_seed(7)
    expected = F.normalize(model.encode_image(torch.randn(2, 3, 32, 32)), dim=-1)
    torch.testing.assert_close(features(clip), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        clip.encode_text(["a dog"]),
        F.normalize(model.encode_text(clip.tokenizer(["a dog"])), dim=-1),
        atol=1e-5,
        rtol=1e-5,
    )


def build(quick=False, **settings):
    return build_clip(text=OPENAI_TEXT, quick_gelu=quick, **settings)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"epoch": 10, "name": "run", "state_dict": {f"module.{k}": v for k, v in w.items()}, "optimizer": {}},
        lambda w: {"model": {f"_orig_mod.{k}": v for k, v in w.items()}},
        lambda w: {"model_state_dict": {f"module._orig_mod.{k}": v for k, v in w.items()}, "epoch": 3},
        lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}, "pytorch-lightning_version": "2"},
        lambda w: {"state_dict": w, "args": argparse.Namespace(model="x", logs=Path("/runs")), "path": Path("/runs")},
    ],
    ids=["plain", "open_clip", "compiled", "both", "Lightning", "Namespace and path beside"],
)
def test_a_named_architecture_gives_the_activation_whatever_wraps_the_weights(saved, wrap):
    gelu, quick = build(), build(quick=True)
    file = saved(wrap(gelu.state_dict()))
    assert_of(load_clip(f"ViT-Tiny:{file}"), gelu)
    assert_of(load_clip(f"ViT-Tiny-quickgelu:{file}"), quick)
    assert (
        features(load_clip(f"ViT-Tiny:{file}")) - features(load_clip(f"ViT-Tiny-quickgelu:{file}"))
    ).abs().max() > 1e-4


def test_a_file_of_openais_keeps_its_activation_under_any_name(saved):
    quick = build(quick=True)
    sizes = {name: torch.tensor(32) for name in ("input_resolution", "context_length", "vocab_size")}
    assert_of(load_clip(f"ViT-Tiny:{saved(quick.state_dict() | sizes)}"), quick)


def test_a_text_tower_of_its_own_and_a_bias_are_read(saved, tmp_path):
    siglip = build_clip(
        open_clip.CustomTextCLIP,
        text=OPENAI_TEXT | {key: SIGLIP_TEXT[key] for key in ("no_causal_mask", "proj_bias", "pool_type")},
        init_logit_bias=-10,
    )
    assert_of(load_clip(f"Tiny-SigLIP:{saved(siglip.state_dict())}"), siglip)
    gelu = build()
    assert_of(load_clip(f"ViT-Tiny:{saved(gelu.state_dict() | {'logit_bias': torch.tensor(-10.0)})}"), gelu)


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_bare_file_that_cannot_tell_its_activation_asks_for_it(saved, wrapped):
    weights = build().state_dict()
    file = saved({"state_dict": weights, "epoch": 10} if wrapped else weights)
    with pytest.raises(UserError, match=r"open_clip knows no architecture 'ViT-Tyny' .*did you mean 'ViT-Tiny'\?"):
        load_clip(f"ViT-Tyny:{file}")
    with pytest.raises(UserError) as error:
        load_clip(file)
    said = str(error.value)
    assert said.startswith(f"{file} does not tell its activation; write ViT-Tiny:{file} for GELU")
    assert f"ViT-Tiny-quickgelu:{file} for QuickGELU" in said


def test_a_trainers_checkpoint_of_an_unknown_architecture_asks_too(saved):
    weights = build(vision=VIT | {"layers": 1}).state_dict()
    with pytest.raises(UserError, match=r"does not tell its activation; write ARCHITECTURE:.* put its open_clip"):
        load_clip(saved({"state_dict": weights, "optimizer": {}}))


def test_plain_weights_of_no_known_architecture_are_taken_for_openais_and_that_is_told(saved, caplog):
    quick = build(quick=True, vision=VIT | {"layers": 1})
    file = saved(quick.state_dict())
    assert_of(load_clip(file), quick)
    assert f"{file} does not tell its activation; it is taken for QuickGELU, as in OpenAI's models" in caplog.text


def test_weights_of_another_architecture_are_told(saved):
    file = saved(build(vision=VIT | {"layers": 1}).state_dict())
    with pytest.raises(UserError, match=r"epoch_10.pt does not fit the architecture ViT-Tiny"):
        load_clip(f"ViT-Tiny:{file}")


def test_a_missing_file_of_an_architecture_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint file .*gone.pt of ViT-Tiny"):
        load_clip(f"ViT-Tiny:{tmp_path}/gone.pt")


def test_a_file_in_the_home_folder_is_found_behind_an_architecture(saved, tmp_path, monkeypatch):
    gelu = build()
    saved(gelu.state_dict())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_of(load_clip("ViT-Tiny:~/epoch_10.pt"), gelu)


def test_other_layouts_are_told_to_name_their_architecture(saved):
    siglip = build_clip(open_clip.CustomTextCLIP, text=SIGLIP_TEXT)
    with pytest.raises(UserError, match=r"is no CLIP checkpoint in OpenAI's layout; name its architecture before it"):
        load_clip(saved(siglip.state_dict()))


def test_the_architectures_of_openais_models_are_told_by_their_sizes(monkeypatch):
    monkeypatch.undo()
    for name in ("ViT-B-32", "ViT-L-14-336", "RN50", "RN50x4"):
        cfg = open_clip.get_model_config(name)
        with torch.device("meta"):
            weights = open_clip.CLIP(**cfg).state_dict()
        assert architectures_of(weights)[0] == name
