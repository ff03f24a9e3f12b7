"""A file, a folder or a config that is no CLIP is told with its name."""

import contextlib
import json
import os
from types import SimpleNamespace

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

from rlcf.clip import loading
from rlcf.clip.loading import load_clip
from rlcf.clip.weights import read_weights
from rlcf.errors import UserError
from tests.tools import FOLDER_MODEL, OPENAI_TEXT, RESNET, SHORT_TEXT, VIT, build_clip, scripted

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


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
        scripted(tensors).save(str(file))
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
