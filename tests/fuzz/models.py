"""Tiny models that readers need beside their files."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import torch
from transformers import OPTConfig, OPTForCausalLM

from caption.language_model import load_language_model
from caption.mapper import TransformerMapper
from demo.train_language_model import build_tokenizer
from rlcf.clip.backbone import Backbone
from tests.tools import OPENAI_TEXT, VIT, build_clip

WIDTH, FEATURES = 32, 16
"""Of the language model's embeddings, and of a CLIP's features."""


@cache
def tiny_clip() -> Backbone:
    """A tiny CLIP that reads any text."""
    model = build_clip(vision=VIT, text=OPENAI_TEXT, seed=1, quick_gelu=True)
    grey = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}
    preprocess = {"mode": "RGB", "resize_mode": "shortest", "fill_color": 0, **grey}
    return Backbone("tiny", model, open_clip.SimpleTokenizer(context_length=77), preprocess, torch.device("cpu"))


def tiny_lm_files(folder: Path) -> Path:
    """The folder of a tiny language model that knows the words of the demo's captions."""
    torch.manual_seed(3)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = OPTConfig(**sizes, **ids, word_embed_proj_dim=WIDTH, ffn_dim=64, pad_token_id=1)
    OPTForCausalLM(config).eval().save_pretrained(folder)
    return folder


@cache
def tiny_lm() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return load_language_model(str(tiny_lm_files(Path(folder) / "lm")))


def mapper() -> TransformerMapper:
    torch.manual_seed(5)
    return TransformerMapper(FEATURES, WIDTH, prefix_length=3, clip_length=2, layers=1, heads=4).eval()


def with_models(run: Callable[[], object]) -> None:
    """Call something with the tiny models in place of those that its flags name."""
    places = ["rlcf.run.setup", "caption.training.extract", "caption.evaluate", "rlcf.clip.loading"]
    with ExitStack() as patched:
        for place in places:
            patched.enter_context(patch(f"{place}.load_clip", lambda *_: tiny_clip()))
        patched.enter_context(patch("caption.captioner.load_language_model", lambda *_: tiny_lm()))
        patched.enter_context(patch("caption.training.run.load_language_model", lambda *_: tiny_lm()))
        patched.enter_context(patch("rlcf.run.run.commit", lambda: None))
        run()
