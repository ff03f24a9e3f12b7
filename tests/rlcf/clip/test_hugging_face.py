"""Folders that `transformers` wrote: the features are those of its own forward pass."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from rlcf.clip.checkpoints import is_hugging_face
from rlcf.clip.loading import load_clip
from rlcf.clip.tuning import image_tower_parameters
from rlcf.errors import UserError

TEXT = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 112}
TEXT |= {"vocab_size": 60, "max_position_embeddings": 12, "bos_token_id": 57, "eos_token_id": 58, "pad_token_id": 59}
VISION = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
VISION |= {"image_size": 32, "patch_size": 16}


WORDS = ("a", "photo", "of", "dog", "cat", ".", "big", "the", "very", "old", "bird")


def write_tokenizer(folder, begin):
    """A tokenizer of words. begin: put a start token before them, as CLIP's."""
    words = {
        word: number
        for number, word in enumerate(["a", "photo", "of", "dog", "cat", ".", "big", "the", "very", "old", "bird"])
    }
    words |= {"[BOS]": 57, "[EOS]": 58, "[PAD]": 59, "[UNK]": 40}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    single = "[BOS] $A [EOS]" if begin else "$A [EOS]"
    tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[("[BOS]", 57), ("[EOS]", 58)])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "eos_token": "[EOS]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | {"unk_token": "[UNK]"}))


def randomised(model):
    """The model with weights under which inputs differ."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "logit" not in name:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


@pytest.fixture
def clip_folder(tmp_path):
    """Writes a tiny CLIP of transformers; gives the folder and the model."""

    def write(text=None, vision=None, **settings):
        config = CLIPConfig(text_config=TEXT | (text or {}), vision_config=VISION | (vision or {}), projection_dim=24)
        model = randomised(CLIPModel(config))
        folder = tmp_path / "clip"
        model.save_pretrained(folder, **settings)
        write_tokenizer(folder, begin=True)
        return folder, model

    return write


@pytest.fixture
def siglip_folder(tmp_path):
    """The same of a SigLIP."""

    def write(**settings):
        vision = VISION | {"image_size": [32, 32]} if settings.pop("oblong", False) else VISION
        model = randomised(SiglipModel(SiglipConfig(text_config=TEXT, vision_config=vision)))
        folder = tmp_path / "siglip"
        model.save_pretrained(folder, **settings)
        write_tokenizer(folder, begin=False)
        return folder, model

    return write


def assert_same(clip, model):
    """The features are those of the model's own forward pass."""
    pixels = torch.randn(3, 3, 32, 32)
    tokens = clip.tokenize(["a photo of a dog.", "the very old bird", "cat"])
    with torch.no_grad():
        theirs = model(input_ids=tokens, pixel_values=pixels)
        images, texts = clip.encode_image(pixels), clip.encode_tokens(tokens)
    torch.testing.assert_close(images, F.normalize(theirs.image_embeds, dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(texts, F.normalize(theirs.text_embeds, dim=-1), atol=1e-5, rtol=1e-4)
    logits = clip.logit_scale * images @ texts.T
    bias = model.logit_bias.item() if hasattr(model, "logit_bias") else 0.0
    torch.testing.assert_close(logits + bias, theirs.logits_per_image, atol=1e-3, rtol=1e-4)
    assert (images[0] - images[1]).abs().max() > 1e-3 and (texts[0] - texts[1]).abs().max() > 1e-3


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_clip_folder_has_the_features_of_its_own_forward_pass(clip_folder, act):
    folder, model = clip_folder({"hidden_act": act}, {"hidden_act": act})
    clip = load_clip(str(folder))
    assert_same(clip, model)
    assert clip.text_tower is not None and clip.size == (32, 32)
    assert tuple(clip.preprocess["mean"]) == (0.48145466, 0.4578275, 0.40821073)


def test_the_end_of_text_of_an_old_config_is_the_highest_token(clip_folder):
    folder, model = clip_folder({"eos_token_id": 2, "vocab_size": 59, "pad_token_id": 1})
    tokens = torch.tensor([[57, 3, 58, 0, 0], [57, 3, 4, 5, 58]])
    clip = load_clip(str(folder))
    with torch.no_grad():
        theirs = model.get_text_features(input_ids=tokens)
    theirs = getattr(theirs, "pooler_output", theirs)
    torch.testing.assert_close(clip.encode_tokens(tokens), F.normalize(theirs, dim=-1), atol=1e-5, rtol=1e-4)


def test_a_siglip_folder_has_the_features_of_its_own_forward_pass(siglip_folder):
    folder, model = siglip_folder()
    clip = load_clip(str(folder))
    assert_same(clip, model)
    assert clip.preprocess["resize_mode"] == "squash" and tuple(clip.preprocess["mean"]) == (0.5, 0.5, 0.5)
    assert clip.text_tower is not None and image_tower_parameters(clip, only_norm=False)


@pytest.mark.parametrize("kind", ["clip_folder", "siglip_folder"])
def test_weights_in_several_files_are_read(kind, request):
    folder, model = request.getfixturevalue(kind)(max_shard_size="150KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert_same(load_clip(str(folder)), model)


def test_weights_of_torch_save_are_read(clip_folder):
    folder, model = clip_folder()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_same(load_clip(str(folder)), model)


def test_the_weight_file_of_a_folder_may_be_named(clip_folder):
    folder, model = clip_folder()
    assert_same(load_clip(str(folder / "model.safetensors")), model)


def test_the_pixels_of_a_folder_are_its_own(clip_folder):
    folder, _ = clip_folder()
    held = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 2]}
    for name, content in (("processor_config.json", {"image_processor": held}), ("preprocessor_config.json", held)):
        (folder / name).write_text(json.dumps(content))
        clip = load_clip(str(folder))
        assert clip.preprocess["mean"] == [0.1, 0.2, 0.3] and clip.preprocess["std"] == [1, 1, 2]


@pytest.mark.parametrize(
    "held",
    [
        "{",
        "[]",
        '{"image_mean": 3}',
        '{"image_mean": [1, 2, "x"]}',
        '{"image_std": [1e999, 1, 1]}',
        '{"image_mean": [0]}',
    ],
)
def test_pixels_that_are_described_wrongly_are_told(clip_folder, held):
    folder, _ = clip_folder()
    (folder / "preprocessor_config.json").write_text(held)
    with pytest.raises(UserError, match=r"preprocessor_config.json"):
        load_clip(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"projection_dim": 8},
        {"projection_dim": "wide"},
        {"text_config": 3},
        {"text_config": TEXT | {"num_hidden_layers": 10**9}},
        {"text_config": TEXT | {"hidden_size": 10**7}},
        {"text_config": TEXT | {"hidden_act": "selu"}},
        {"vision_config": VISION | {"num_attention_heads": 0}},
        {"vision_config": VISION | {"image_size": 64}},
        {"vision_config": None},
    ],
)
def test_a_config_that_is_broken_or_of_other_weights_is_told(clip_folder, changes):
    folder, _ = clip_folder()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=r"config.json"):
        load_clip(str(folder))


def test_weights_that_are_missing_damaged_or_not_finite_are_told(clip_folder):
    folder, _ = clip_folder()
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({name: tensor for name, tensor in weights.items() if "mlp.fc1.bias" not in name}, file)
    with pytest.raises(UserError, match=r"the weights in .*clip do not fit its config.json"):
        load_clip(str(folder))
    save_file(weights | {"logit_scale": torch.tensor(torch.nan)}, file)
    with pytest.raises(UserError, match=r"the weights logit_scale of .* are not finite"):
        load_clip(str(folder))
    file.unlink()
    with pytest.raises(UserError, match=r"has a config.json but no weights \(model.safetensors"):
        load_clip(str(folder))
    index = folder / "model.safetensors.index.json"
    wrong = ('{"weight_map": {"a": "../elsewhere.safetensors"}}', '{"weight_map": 3}', "[]", '{"weight_map": {"a": 1}}')
    for held in wrong:
        index.write_text(held)
        with pytest.raises(UserError, match=r"model.safetensors.index.json names no weight files"):
            load_clip(str(folder))
    index.write_text('{"weight_map": {"a": "gone.safetensors"}}')
    with pytest.raises(UserError, match=r"no weight file .*gone.safetensors"):
        load_clip(str(folder))


def test_a_folder_without_a_tokenizer_is_told(siglip_folder):
    folder, _ = siglip_folder()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"siglip holds a tokenizer that cannot be loaded"):
        load_clip(str(folder))


def test_a_folder_of_another_model_is_told(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"no config.json of a CLIP or SigLIP"):
        load_clip(str(tmp_path))


@pytest.mark.parametrize("described", [{"model_type": ["clip"]}, {"model_type": None}, {}, [], 7])
def test_a_config_of_any_content_is_no_clip_of_transformers(described, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert not is_hugging_face(tmp_path)


def test_a_tokenizer_whose_settings_are_of_another_kind_is_told(clip_folder):
    folder, _ = clip_folder()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_max_length": "77"}))
    with pytest.raises(UserError, match="holds a tokenizer that cannot be loaded"):
        load_clip(str(folder))
