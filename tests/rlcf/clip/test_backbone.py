import contextlib
import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

from rlcf.clip import backbone as backbone_module
from rlcf.clip import loading
from rlcf.clip.backbone import Backbone
from rlcf.clip.loading import load_clip, openai_file_name
from rlcf.clip.weights import read_weights
from rlcf.errors import UserError
from tests.tools import OPENAI_TEXT, RESNET, SHORT_TEXT, SIGLIP_TEXT, VIT, build_clip

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

FOLDER_MODEL = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": SHORT_TEXT}
TEXTS = ["a photo of a dog.", "the sea"]


@pytest.fixture(params=["vit", "resnet"])
def clip(request):
    """A CLIP as OpenAI's files describe one."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def save(tmp_path):
    def write(content, name="model.pt", **settings):
        torch.save(content, tmp_path / name, **settings)
        return tmp_path / name

    return write


@pytest.fixture
def folder(tmp_path):
    """A folder as open_clip writes one: config, weights."""

    def write(model, config=None, weights="open_clip_model.safetensors"):
        path = tmp_path / "folder"
        path.mkdir(exist_ok=True)
        if config is not None:
            text = config if isinstance(config, bytes) else json.dumps(config).encode()
            (path / "open_clip_config.json").write_bytes(text)
        if model is not None:
            save_file({k: v.clone() for k, v in model.state_dict().items()}, path / weights)
        return path

    return write


@pytest.fixture
def tiny():
    return build_clip()


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


def script(state_dict):
    """A TorchScript module with these names."""
    root = nn.Identity()
    for key, value in state_dict.items():
        *path, leaf = key.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Identity())
            module = module.get_submodule(part)
        module.register_buffer(leaf, value)
    return torch.jit.script(root)


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
    script(openai_extras(clip.state_dict())).save(str(tmp_path / "model.pt"))
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


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone.pt"):
        load_clip(str(tmp_path / "gone.pt"))
    with pytest.raises(UserError, match=r"no weight file .*gone.pt"):
        read_weights(tmp_path / "gone.pt")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04 and no more", b"<!DOCTYPE html><html></html>"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_damaged_file_is_named(tmp_path, content, suffix):
    (tmp_path / f"bad.{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=f"bad.{suffix}"):
        load_clip(str(tmp_path / f"bad.{suffix}"))


def test_a_pointer_to_large_file_storage_is_told_to_be_no_weight_file(tmp_path):
    file = tmp_path / "pointer.pt"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 12345\n")
    with pytest.raises(UserError, match=r"pointer.pt is damaged or no weight file"):
        read_weights(file)


@pytest.mark.parametrize("kind", ["zip", "legacy", "script", "safetensors"])
@given(data=st.data())
def test_a_file_that_was_cut_off_is_named(tmp_path_factory, kind, data):
    tensors = {"a": torch.arange(30.0), "b": torch.ones(3, dtype=torch.int64)}
    file = tmp_path_factory.getbasetemp() / ("cut.safetensors" if kind == "safetensors" else "cut.pt")
    if kind == "safetensors":
        save_file(tensors, file)
    elif kind == "script":
        script(tensors).save(str(file))
    else:
        torch.save(tensors, file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match=file.name):
        read_weights(file)


@given(st.binary(max_size=60))
def test_a_file_of_any_bytes_is_named(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "bytes.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=file.name):
        load_clip(str(file))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run_and_its_file_is_named(tmp_path, save, zipped):
    target = tmp_path / "made-by-the-checkpoint"
    code = type("Code", (), {"__reduce__": lambda self: (os.mkdir, (str(target),))})()
    file = save({"state_dict": {"weight": torch.ones(1)}, "args": code}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"model.pt is no CLIP checkpoint"):
        load_clip(str(file))
    assert not target.exists()


def test_a_pickled_model_is_not_built_and_its_class_is_named(save):
    with pytest.raises(UserError, match=r"model.pt holds a types.SimpleNamespace, not a state dict; save the model's"):
        load_clip(str(save(SimpleNamespace(lr=1))))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([torch.ones(1)], "holds a list, not a state dict"),
        (torch.ones(1), "holds a Tensor, not a state dict"),
        ({}, "is no CLIP checkpoint"),
        ({"state_dict": {}}, "is no CLIP checkpoint"),
        (nn.Linear(2, 2).state_dict(), "is no CLIP checkpoint"),
        ({"vision_model.x": torch.ones(1)}, "is in Hugging Face's layout; put its config.json beside it"),
    ],
)
def test_a_torch_file_that_is_no_clip_is_named(save, content, words):
    with pytest.raises(UserError, match=f"model.pt {words}"):
        load_clip(str(save(content)))


@pytest.mark.parametrize(
    "missing",
    ["visual.conv1.weight", "visual.positional_embedding", "transformer.resblocks.1.ln_1.bias", "text_projection"],
)
def test_a_clip_file_that_lacks_a_weight_is_named(vit, save, missing):
    weights = {key: value for key, value in vit.state_dict().items() if key != missing}
    with pytest.raises(UserError, match=r"model.pt is no .*CLIP checkpoint"):
        load_clip(str(save(weights)))


def test_a_resnet_whose_attention_pool_is_not_square_is_named(resnet, save):
    key = "visual.attnpool.positional_embedding"
    weights = resnet.state_dict() | {key: torch.ones(4, resnet.state_dict()[key].shape[1])}
    with pytest.raises(UserError, match=r"model.pt is no complete CLIP checkpoint"):
        load_clip(str(save(weights)))


def test_a_text_tower_narrower_than_one_head_is_named(save):
    weights = build_clip(text=OPENAI_TEXT | {"width": 32, "vocab_size": 100}).state_dict()
    with pytest.raises(UserError, match=r"model.pt is no .*CLIP checkpoint"):
        load_clip(str(save(weights)))


def test_a_folder_without_config_is_named(tiny, folder):
    with pytest.raises(
        UserError, match=r"folder holds no open_clip_config.json, and no config.json of a CLIP or SigLIP;"
    ):
        load_clip(str(folder(tiny)))


def test_a_folder_with_config_and_no_weights_is_named(folder):
    with pytest.raises(UserError, match=r"folder holds an open_clip_config.json but no weights"):
        load_clip(str(folder(None, {"model_cfg": FOLDER_MODEL})))


BROKEN = {
    "no JSON": b"{",
    "no text": b"\xff\xfe{",
    "list": [1],
    "no model": {},
    "null model": {"model_cfg": None},
    "empty model": {"model_cfg": {}},
    "null tower": {"model_cfg": FOLDER_MODEL | {"text_cfg": None}},
    "odd heads": {"model_cfg": FOLDER_MODEL | {"text_cfg": SHORT_TEXT | {"heads": 5}}},
    "other tower": {"model_cfg": FOLDER_MODEL | {"vision_cfg": RESNET}},
    "other width": {"model_cfg": FOLDER_MODEL | {"embed_dim": 8}},
    "unknown key": {"model_cfg": FOLDER_MODEL | {"vision_cfg": VIT | {"patches": 16}}},
    "grey pixels": {"model_cfg": FOLDER_MODEL, "preprocess_cfg": {"mode": "L"}},
}


@pytest.mark.parametrize("config", BROKEN.values(), ids=BROKEN)
def test_a_config_that_is_broken_or_fits_other_weights_is_named(tiny, folder, config):
    with pytest.raises(UserError, match=r"open_clip_config.json"):
        load_clip(str(folder(tiny, config)))


def test_a_shape_that_does_not_fit_is_told(tiny, folder):
    with pytest.raises(UserError, match=r"size mismatch"):
        load_clip(str(folder(tiny, {"model_cfg": FOLDER_MODEL | {"embed_dim": 8}})))


@pytest.mark.parametrize("preprocess", [None, {"mean": None}, {"use_cls": True}])
def test_pixels_that_a_config_leaves_open_are_openais(tiny, folder, preprocess):
    backbone = load_clip(str(folder(tiny, {"model_cfg": FOLDER_MODEL, "preprocess_cfg": preprocess})))
    pixels = backbone.prepare(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(
        pixels[0, :, 0, 0],
        -torch.tensor([0.48145466, 0.4578275, 0.40821073]) / torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )


@pytest.fixture
def tokenizer_folder(folder, tiny):
    """A CLIP's folder with a tokenizer of words. settings: of tokenizer_config.json; kwargs: of the CLIP's config."""

    def write(settings, **kwargs):
        text = SHORT_TEXT | {"hf_tokenizer_name": "local", "tokenizer_kwargs": kwargs}
        path = folder(tiny, {"model_cfg": FOLDER_MODEL | {"text_cfg": text}})
        words = Tokenizer(WordLevel({"[UNK]": 0, "[PAD]": 1, "dog": 2, "a": 3, "rare": 200}, unk_token="[UNK]"))
        words.pre_tokenizer = Whitespace()
        words.save(str(path / "tokenizer.json"))
        kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
        (path / "tokenizer_config.json").write_text(json.dumps(kind | settings))
        return path

    return write


def test_a_tokenizer_without_padding_is_told_with_its_folder(tokenizer_folder):
    with pytest.raises(UserError, match=r"folder names a tokenizer that cannot be loaded .*padding token"):
        load_clip(str(tokenizer_folder({})))


def test_a_tokenizer_without_a_length_that_is_a_number_is_told_with_its_folder(tokenizer_folder):
    with pytest.raises(UserError, match=r"folder names a tokenizer that cannot be loaded"):
        load_clip(str(tokenizer_folder({"pad_token": "[PAD]", "model_max_length": [32]})))


def test_a_text_with_half_a_character_is_told(tokenizer_folder):
    clip = load_clip(str(tokenizer_folder({"pad_token": "[PAD]"})))
    for use in (clip.encode_text, clip.truncated):
        with pytest.raises(UserError, match=r"^'a \\ud800' holds half a character \(a lone surrogate\); take it out$"):
            use(["a \ud800"])


def test_a_text_whose_tokens_the_model_has_not_is_told(tokenizer_folder):
    clip = load_clip(str(tokenizer_folder({"pad_token": "[PAD]"})))
    assert clip.tokenize(["a dog"]).max() < 100
    with pytest.raises(UserError, match=r"the tokenizer of .*folder is another model's: it has more than its 100 "):
        clip.tokenize(["rare"])


def test_the_code_of_a_tokenizer_is_not_run_even_where_the_config_asks_for_it(tokenizer_folder, tmp_path):
    own = {"pad_token": "[PAD]", "tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": [None, "mine.Mine"]}}
    path = tokenizer_folder(own, trust_remote_code=True)
    (path / "mine.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\nclass Mine: pass\n")
    with contextlib.suppress(UserError):
        load_clip(str(path))
    assert not (tmp_path / "made").exists()


def test_the_code_of_a_tokenizer_of_the_hub_is_not_run(monkeypatch, tokenizer_folder):
    config = tokenizer_folder({}, trust_remote_code=True) / "open_clip_config.json"
    asked = []
    monkeypatch.setattr(loading, "download_pretrained_from_hf", lambda *_: str(config))
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: build_clip())
    monkeypatch.setattr(open_clip, "get_tokenizer", lambda name, **settings: asked.append((name, settings)))
    load_clip("hf-hub:some/one")
    assert asked == [("hf-hub:some/one", {"trust_remote_code": False})]


def test_weights_that_were_downloaded_and_are_not_finite_are_told(monkeypatch):
    model = build_clip()
    model.visual.proj.data[0, 0] = torch.nan
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: model)
    with pytest.raises(UserError, match=r"the weights visual.proj of ViT-B/16 are not finite"):
        load_clip("ViT-B/16")


@pytest.mark.parametrize(
    "pixels",
    [
        {"mean": ["a", "b", "c"]},
        {"mean": [0.5, 0.5]},
        {"mean": [1e999, 0.5, 0.5]},
        {"std": [0, 0.5, 0.5]},
        {"std": None},
        {"interpolation": "guess"},
        {"resize_mode": 3},
        {"fill_color": "red"},
    ],
)
def test_pixels_that_are_described_wrongly_are_told_or_left(tiny, folder, pixels):
    path = folder(tiny, {"model_cfg": FOLDER_MODEL, "preprocess_cfg": pixels})
    try:
        clip = load_clip(str(path))
    except UserError as error:
        assert str(path / "open_clip_config.json") in str(error)
    else:
        assert clip.prepare(clip.centre_view(Image.new("RGB", (40, 30)))[None]).isfinite().all()


def test_a_config_of_more_layers_than_its_weights_have_is_told(tiny, folder):
    config = FOLDER_MODEL | {"vision_cfg": VIT | {"layers": 10**9}}
    with pytest.raises(UserError, match=r"does not fit the model that .* describes \(it has 1000000002 layers"):
        load_clip(str(folder(tiny, {"model_cfg": config})))


def test_a_tokenizer_that_is_not_there_is_told_with_its_folder(tiny, folder):
    config = FOLDER_MODEL | {"text_cfg": SHORT_TEXT | {"hf_tokenizer_name": "local"}}
    with pytest.raises(UserError, match=r"folder names a tokenizer that cannot be loaded"):
        load_clip(str(folder(tiny, {"model_cfg": config})))


@pytest.fixture
def plain(tiny):
    """The tiny CLIP with numbers that are easy to work out."""
    preprocess = {"size": 32, "mean": [0.5, 0.25, 0.0], "std": [0.25, 0.5, 1.0]}
    return Backbone("tiny", tiny, None, preprocess, torch.device("cpu"))


def test_prepare_normalises_with_the_models_own_mean_and_std(plain):
    pixels = torch.tensor([255, 0, 51], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    prepared = plain.prepare(pixels)
    assert prepared.shape == (1, 3, 32, 32)
    assert prepared[0, :, 7, 9].tolist() == pytest.approx([2.0, -0.5, 0.2])


def test_prepare_reads_bytes_and_floats_alike(plain):
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(plain.prepare(pixels.float() / 255), plain.prepare(pixels))


@pytest.mark.parametrize("size", [(48, 48), (20, 50)])
def test_prepare_resizes_other_resolutions_by_bicubic_with_aligned_corners(plain, size):
    pixels = torch.rand(2, 3, *size)
    mean, std = torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1), torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1)
    resized = plain.prepare(pixels) * std + mean
    expected = F.interpolate(pixels, (32, 32), mode="bicubic", align_corners=True)
    torch.testing.assert_close(resized, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        resized[..., [0, 0, -1, -1], [0, -1, 0, -1]], pixels[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    )


def test_the_centre_view_prepared_is_the_models_evaluation_transform(plain):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    expected = image_transform_v2(PreprocessCfg(**plain.preprocess), is_train=False)(image)
    view = plain.centre_view(image)
    assert view.min() >= 0 and view.max() <= 1
    torch.testing.assert_close(plain.prepare(view[None])[0], expected)


def test_image_features_have_unit_length(plain):
    features = plain.encode_image(torch.randn(4, 3, 32, 32))
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(4))


def test_bf16_features_are_fp32_of_unit_length_near_the_full_ones(plain):
    pixels = torch.randn(4, 3, 32, 32)
    full, half = plain.encode_image(pixels), dataclasses.replace(plain, precision="bf16").encode_image(pixels)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    torch.testing.assert_close(half.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(half, full, atol=0.03, rtol=0)


def test_text_features_do_not_depend_on_the_batches(plain, words, monkeypatch):
    backbone = dataclasses.replace(plain, tokenizer=words)
    texts = ["a dog", "the cat", "a very old sailing ship", "sea lion", "a photo of a dog"]
    whole = backbone.encode_text(texts)
    monkeypatch.setattr(backbone_module, "TEXT_BATCH", 2)
    torch.testing.assert_close(backbone.encode_text(texts), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole.norm(dim=-1), torch.ones(5))


def test_a_tower_that_embeddings_cannot_drive_still_encodes_texts(plain, words):
    model = SimpleNamespace(text=nn.Linear(1, 1), encode_text=lambda tokens: tokens.float())
    backbone = dataclasses.replace(plain, model=model, tokenizer=words)
    assert backbone.text_tower is None
    torch.testing.assert_close(backbone.encode_text(["a dog"]), F.normalize(words(["a dog"]).float(), dim=-1))


def test_a_word_that_a_vocabulary_of_whole_words_lacks_is_told_with_its_text(plain, words):
    def with_vocabulary_of(model):
        def tokenizer(texts):
            return words(texts)

        backend = SimpleNamespace(model=model)
        unknown = words(["ship"])[0, 0].item()
        tokenizer.tokenizer = SimpleNamespace(unk_token_id=unknown, backend_tokenizer=backend)
        return dataclasses.replace(plain, name="tiny", tokenizer=tokenizer)

    whole_words = with_vocabulary_of(WordLevel({"ship": 0}, unk_token="ship"))
    assert whole_words.tokenize(["a dog"]).shape == (1, 16)
    with pytest.raises(UserError, match=r"tiny knows a few words only, not all of 'a ship'; use a CLIP with a full "):
        whole_words.tokenize(["a dog", "a ship"])
    assert with_vocabulary_of(BPE()).tokenize(["a ship"]).shape == (1, 16)


def test_a_home_folder_is_written_as_a_tilde(tiny, folder, monkeypatch):
    path = folder(tiny, {"model_cfg": FOLDER_MODEL})
    monkeypatch.setenv("HOME", str(path.parent))
    assert torch.equal(load_clip(str(Path("~") / path.name)).model.visual.proj, tiny.visual.proj)


def test_the_digest_sees_every_weight_every_kind_of_layer_and_the_input(demo_clip):
    whole = demo_clip().digest
    assert whole == demo_clip().digest != demo_clip("demo-reward").digest
    moved, other = demo_clip(), demo_clip()
    with torch.no_grad():
        moved.model.text_projection[0, 0] += 1e-6
    block = other.model.transformer.resblocks[0].mlp
    block.gelu = torch.nn.ReLU()
    dimmed = dataclasses.replace(demo_clip(), preprocess=demo_clip().preprocess | {"mean": (0.4, 0.4, 0.4)})
    assert len({whole, moved.digest, other.digest, dimmed.digest}) == 4
