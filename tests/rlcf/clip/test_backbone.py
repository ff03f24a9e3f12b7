"""A loaded CLIP prepares pixels and encodes images and texts."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tokenizers.models import BPE, WordLevel
from torch import nn

from rlcf.clip import backbone as backbone_module
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError


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
