"""A tokenizer.json read by `tokenizers` alone has the token ids of `transformers`."""

import json
import shutil

import pytest
import torch
from open_clip.tokenizer import HFTokenizer

from rlcf.clip.file_tokenizer import FileTokenizer, file_tokenizer
from rlcf.clip.loading import load_clip
from rlcf.clip.text_tower import word_tokens
from rlcf.errors import UserError
from rlcf.shipped import ASSETS

TEXTS = [
    "a photo of a cat.",
    "",
    "  A\nPhoto, of &amp; <eot> ",
    "unheard-of wörds",
    " ".join(["a red dog"] * 40),
    "<pad>",
]
CONFIG = {"hf_tokenizer_name": "local", "context_length": 32}


@pytest.fixture
def folder(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ASSETS / "demo-student" / name, tmp_path)
    return tmp_path


def test_token_ids_are_those_of_transformers(folder):
    ours, theirs = file_tokenizer(folder, CONFIG), HFTokenizer(folder, context_length=32)
    assert isinstance(ours, FileTokenizer)
    assert torch.equal(ours(TEXTS), theirs(TEXTS)) and ours(TEXTS).dtype == torch.int64
    assert torch.equal(ours(TEXTS[0], 5), theirs(TEXTS[0], 5))
    for text in TEXTS:
        assert word_tokens(ours, text) == word_tokens(theirs, text)
    assert ours.tokenizer.num_special_tokens_to_add() == theirs.tokenizer.num_special_tokens_to_add() == 2
    assert ours.tokenizer.unk_token_id == theirs.tokenizer.unk_token_id is not None


def test_texts_with_unknown_words_are_told_and_long_ones_counted():
    clip = load_clip("demo-student")
    assert isinstance(clip.tokenizer, FileTokenizer) and clip.truncated([TEXTS[0], TEXTS[4]]) == 1
    with pytest.raises(UserError, match="demo-student knows a few words only, not all of 'a wombat'"):
        clip.tokenize(["a cat", "a wombat"])


@pytest.mark.parametrize(
    ("text_cfg", "settings"),
    [
        ({}, {}),
        ({"tokenizer_kwargs": {"clean": "canonicalize"}}, {}),
        ({"tokenizer_mode": "clips"}, {}),
        ({}, {"tokenizer_class": "BertTokenizerFast"}),
        ({}, {"padding_side": "left"}),
        ({}, {"model_max_length": [32]}),
        ({}, {"pad_token": {"content": "<pad>"}}),
    ],
)
def test_any_other_tokenizer_is_left_to_transformers(folder, text_cfg, settings):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    given = {**CONFIG, **text_cfg} if text_cfg or settings else {"context_length": 32}
    assert file_tokenizer(folder, given) is None


def test_a_padding_that_is_no_token_is_told(folder):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token": "<nothing>"}))
    with pytest.raises(ValueError, match="'<nothing>' is no token of it"):
        file_tokenizer(folder, CONFIG)
