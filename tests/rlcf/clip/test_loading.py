"""CLIPs are loaded by every name, file and folder that `load_clip` lists."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from rlcf.clip.loading import load_clip, openai_file_name
from rlcf.errors import UserError
from tests.tools import FOLDER_MODEL, SIGLIP_TEXT, VIT, build_clip, scripted

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


TEXTS = ["a photo of a dog.", "the sea"]


@pytest.fixture(params=["vit", "resnet"])
def clip(request):
    """A CLIP as OpenAI's files describe one."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def no_download(monkeypatch):
    """Every download of open_clip's fails; its calls are listed."""
    calls = []

    def refuse(architecture, **settings):
        calls.append((architecture, settings))
        raise ConnectionError("no route to host\nmore")

    monkeypatch.setattr(open_clip, "create_model", refuse)
    return calls


def openai_extras(state_dict):
    numbers = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}
    return state_dict | {name: torch.tensor(number) for name, number in numbers.items()}


def assert_same_features(backbone, model, texts=TEXTS):
    pixels = torch.randn(3, 3, *backbone.size)
    expected = F.normalize(model.encode_image(pixels), dim=-1)
    torch.testing.assert_close(backbone.encode_image(pixels), expected, atol=1e-6, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    if texts:
        expected = F.normalize(model.encode_text(backbone.tokenizer(texts)), dim=-1)
        torch.testing.assert_close(backbone.encode_text(texts), expected, atol=1e-5, rtol=1e-5)


def test_an_openai_state_dict_has_the_source_models_features(clip, save):
    assert_same_features(load_clip(str(save(openai_extras(clip.state_dict())))), clip)


def test_a_torchscript_archive_has_the_source_models_features(clip, tmp_path):
    scripted(openai_extras(clip.state_dict())).save(str(tmp_path / "model.pt"))
    assert_same_features(load_clip(str(tmp_path / "model.pt")), clip)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_wrapped_state_dict_of_a_parallel_run_has_the_source_models_features(vit, save, zipped):
    weights = {f"module.{key}": value for key, value in openai_extras(vit.state_dict()).items()}
    checkpoint = {"epoch": 3, "best": np.float64(0.5), "name": "run", "state_dict": weights}
    file = save(checkpoint, _use_new_zipfile_serialization=zipped)
    assert_same_features(load_clip(str(file)), vit)


def test_half_precision_weights_are_read_as_fp32(vit, save):
    backbone = load_clip(str(save({key: value.half() for key, value in vit.state_dict().items()})))
    weight = backbone.model.visual.proj
    assert weight.dtype == torch.float32 and torch.equal(weight, vit.visual.proj.half().float())


def test_fp32_weights_are_not_rounded(clip, save):
    backbone = load_clip(str(save(clip.state_dict())))
    loaded = backbone.model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in clip.state_dict().items())


def test_a_loaded_model_is_frozen_in_eval_mode_and_passes_gradients_to_its_input(resnet, save):
    backbone = load_clip(str(save(resnet.state_dict())))
    assert not backbone.model.training and not any(p.requires_grad for p in backbone.model.parameters())
    pixels = torch.randn(1, 3, 32, 32, requires_grad=True)
    backbone.encode_image(pixels)[0, 0].backward()
    assert pixels.grad.abs().max() > 0


def test_openai_checkpoints_have_openais_pixels_size_and_temperature(vit, save):
    backbone = load_clip(str(save(vit.state_dict())))
    assert backbone.size == (32, 32)
    assert tuple(backbone.preprocess["mean"]) == (0.48145466, 0.4578275, 0.40821073)
    assert tuple(backbone.preprocess["std"]) == (0.26862954, 0.26130258, 0.27577711)
    assert backbone.logit_scale.shape == () and backbone.logit_scale.item() == pytest.approx(1 / 0.07)


def test_a_folder_has_the_source_models_features_and_its_own_pixels(tiny, folder):
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.25, 0.5, 1.0], "interpolation": "bilinear", "resize_mode": "squash"}
    backbone = load_clip(str(folder(tiny, {"model_cfg": FOLDER_MODEL, "preprocess_cfg": {"size": 224, **pixels}})))
    assert_same_features(backbone, tiny, texts=None)
    assert backbone.size == (32, 32) and {key: backbone.preprocess[key] for key in pixels} == pixels


def test_a_weight_file_beside_a_config_is_read_by_that_config(tiny, folder):
    path = folder(tiny, {"model_cfg": FOLDER_MODEL}, weights="mine.safetensors")
    assert_same_features(load_clip(str(path / "mine.safetensors")), tiny, texts=None)


def test_the_activation_of_a_folder_is_its_configs(folder):
    quick = build_clip(quick_gelu=True)
    backbone = load_clip(str(folder(quick, {"model_cfg": FOLDER_MODEL | {"quick_gelu": True}})))
    assert_same_features(backbone, quick, texts=None)


def test_a_siglip_folder_has_the_source_models_features(folder):
    config = FOLDER_MODEL | {"text_cfg": SIGLIP_TEXT, "init_logit_bias": -10, "custom_text": True}
    siglip = build_clip(open_clip.CustomTextCLIP, text=SIGLIP_TEXT, init_logit_bias=-10)
    backbone = load_clip(str(folder(siglip, {"model_cfg": config})))
    assert_same_features(backbone, siglip, texts=None)
    tokens = torch.randint(100, (4, 16))
    torch.testing.assert_close(
        backbone.text_tower(backbone.text_tower.embed(tokens), tokens), siglip.encode_text(tokens)
    )


def test_open_clips_own_file_is_taken_before_others(tiny, folder):
    other = build_clip(quick_gelu=True)
    other.visual.proj.data.zero_()
    folder(other, weights="a.safetensors")
    backbone = load_clip(str(folder(tiny, {"model_cfg": FOLDER_MODEL})))
    assert torch.equal(backbone.model.visual.proj, tiny.visual.proj)


def test_an_oblong_model_has_an_oblong_size(folder):
    vision = VIT | {"image_size": [32, 48]}
    backbone = load_clip(str(folder(build_clip(vision=vision), {"model_cfg": FOLDER_MODEL | {"vision_cfg": vision}})))
    assert backbone.size == (32, 48)
    assert backbone.prepare(torch.rand(2, 3, 20, 20)).shape == (2, 3, 32, 48)
    assert backbone.centre_view(Image.new("RGB", (90, 70))).shape == (3, 32, 48)


def test_an_openai_name_is_read_from_the_clip_root(vit, tmp_path, save, no_download):
    save(vit.state_dict(), "ViT-B-16.pt")
    backbone = load_clip("ViT-B/16", clip_root=tmp_path)
    assert backbone.name == "ViT-B/16" and torch.equal(backbone.model.visual.proj, vit.visual.proj)
    assert no_download == []


def test_an_openai_name_that_cannot_be_downloaded_is_told_with_the_file_that_was_looked_for(tmp_path, no_download):
    with pytest.raises(UserError) as error:
        load_clip("ViT-L/14@336px", clip_root=tmp_path)
    assert str(tmp_path / "ViT-L-14-336px.pt") in str(error.value) and "--clip-root" in str(error.value)
    assert "no route to host" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "architecture", "tag", "quick"),
    [
        ("ViT-B/16", "ViT-B-16", "openai", True),
        ("RN50", "RN50", "openai", True),
        ("ViT-B-16:laion2b_s34b_b88k", "ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B/32:laion2b_e16", "ViT-B-32", "laion2b_e16", False),
        ("ViT-B-32:metaclip_400m", "ViT-B-32", "metaclip_400m", True),
    ],
)
def test_open_clip_is_asked_for_the_weights_with_their_activation(no_download, name, architecture, tag, quick):
    with pytest.raises(UserError, match=f"{name} could not be downloaded"):
        load_clip(name)
    ((asked, settings),) = no_download
    assert (asked, settings["pretrained"], settings["force_quick_gelu"]) == (architecture, tag, quick)


@pytest.mark.parametrize(
    ("name", "file"),
    [("RN50", "RN50.pt"), ("ViT-B/16", "ViT-B-16.pt"), ("ViT-L/14@336px", "ViT-L-14-336px.pt")],
)
def test_openai_file_names(name, file):
    assert openai_file_name(name) == file


@pytest.mark.parametrize(
    ("name", "meant"), [("ViT-B/61", "ViT-B/16"), ("RN51", "RN50"), ("demo-studnt", "demo-student")]
)
def test_an_unknown_name_is_told_with_the_one_that_is_near(name, meant):
    with pytest.raises(UserError, match=f"unknown model '{name}'; did you mean '{meant}'"):
        load_clip(name)


def test_an_architecture_without_weights_is_not_called_unknown_and_near_to_itself():
    with pytest.raises(UserError) as error:
        load_clip("ViT-B-16")
    assert "did you mean 'ViT-B-16'?" not in str(error.value)


def test_an_unknown_tag_is_told_with_the_known_ones():
    with pytest.raises(UserError, match=r"ViT-B-16 has no weights 'laion3b'; open_clip knows openai, .*laion2b"):
        load_clip("ViT-B-16:laion3b")


def test_a_home_folder_is_written_as_a_tilde(tiny, folder, monkeypatch):
    path = folder(tiny, {"model_cfg": FOLDER_MODEL})
    monkeypatch.setenv("HOME", str(path.parent))
    assert torch.equal(load_clip(str(Path("~") / path.name)).model.visual.proj, tiny.visual.proj)
