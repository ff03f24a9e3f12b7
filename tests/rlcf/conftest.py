"""Tiny CLIPs with random weights, and their tokenizers."""

from types import SimpleNamespace

import open_clip
import pytest
import torch
from hypothesis import settings
from torch import nn

settings.register_profile("rlcf", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("rlcf")

VIT = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}
RESNET = {"image_size": 32, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
OPENAI_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
SHORT_TEXT = OPENAI_TEXT | {"context_length": 16, "vocab_size": 100, "heads": 2}
SIGLIP_TEXT = SHORT_TEXT | {
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def build():
    """A tiny CLIP from open_clip's config; its text features vary strongly with the text."""

    def make(kind=open_clip.CLIP, vision=VIT, text=SHORT_TEXT, **settings):
        torch.manual_seed(0)
        model = kind(embed_dim=16, vision_cfg=dict(vision), text_cfg=dict(text), **settings)
        tower = getattr(model, "text", model)
        for parameter in (tower.token_embedding.weight, tower.positional_embedding):
            nn.init.normal_(parameter, std=0.5)
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def vit(build):
    return build(text=OPENAI_TEXT, quick_gelu=True)


@pytest.fixture(scope="session")
def resnet(build):
    model = build(vision=RESNET, text=OPENAI_TEXT, quick_gelu=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.running_var, 0.05, 0.15)
    return model


VOCABULARY = ". a an the of photo and big very old dog cat bird sea lion sailing ship"


@pytest.fixture(scope="session")
def make_tokenizer():
    """A tokenizer as open_clip wraps Hugging Face's, of 16 tokens: a number a word, the end of text, padding."""

    def make(end=1, padding=1, length=16):
        ids = {word: number for number, word in enumerate(VOCABULARY.split(), start=2)}

        def encode(text, add_special_tokens=True):
            numbers = [ids[word] for word in text.replace(".", " .").split()]
            return SimpleNamespace(input_ids=numbers + [end] * add_special_tokens)

        def tokenize(texts):
            rows = [[*encode(text, add_special_tokens=False).input_ids[: length - 1], end] for text in texts]
            return torch.tensor([row + [padding] * (length - len(row)) for row in rows])

        tokenize.tokenizer = encode
        return tokenize

    return make


@pytest.fixture(scope="session")
def words(make_tokenizer):
    """SigLIP's kind: the end of text is also the padding."""
    return make_tokenizer()
