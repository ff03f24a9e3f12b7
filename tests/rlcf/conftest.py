"""Tiny CLIPs of the ground floor's tests, as OpenAI's files describe them."""

import pytest

from tests.tools import OPENAI_TEXT, RESNET, build_clip, word_tokenizer


@pytest.fixture(scope="session")
def vit():
    return build_clip(text=OPENAI_TEXT, quick_gelu=True)


@pytest.fixture(scope="session")
def resnet():
    return build_clip(vision=RESNET, text=OPENAI_TEXT, quick_gelu=True)


@pytest.fixture
def words():
    """SigLIP's kind of tokenizer: the end of text is also the padding."""
    return word_tokenizer()
