"""Tiny random language models and captioners that know the words of the emoji scenes, and pictures of such scenes."""

import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from caption.captioner import Captioner, CaptionModels
from caption.clip_model import MapperPolicy
from caption.config import CaptionConfig
from caption.language_model import load_language_model
from caption.main import main
from caption.mapper import TransformerMapper, save_mapper
from demo.train_language_model import build_tokenizer
from demo.world import write_retrieval
from tests.tools import Results

WIDTH, FEATURES = 32, 128
SMALL = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}


def newline_tokenizer(folder):
    """Byte-level, as OPT's and GPT-2's: a newline is a token of its own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>", "<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["a dog to the left of an owl", "a cat above a key"], trainer)
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return fast


def build(kind, folder):
    torch.manual_seed(3)
    tokenizer = build_tokenizer(folder) if kind == "opt" else newline_tokenizer(folder)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if kind == "opt":
        model = OPTForCausalLM(OPTConfig(**SMALL, **ids, word_embed_proj_dim=WIDTH, ffn_dim=64, pad_token_id=1))
    elif kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(**ids, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=64))
    else:
        model = LlamaForCausalLM(LlamaConfig(**SMALL, **ids, num_key_value_heads=1, intermediate_size=64))
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform, so that what is read decides what is said
            parameter.mul_(1.0 if parameter.dim() == 1 else 6.0)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory):
    """The folder of a tiny random language model: "opt" (words, no newline), "gpt2" or "llama" (bytes)."""
    root = tmp_path_factory.mktemp("language-models")

    def make(kind):
        folder = root / kind
        if not folder.exists():
            folder.mkdir()
            build(kind, folder)
        return folder

    return make


def random_mapper():
    torch.manual_seed(5)
    mapper = TransformerMapper(FEATURES, WIDTH, prefix_length=3, clip_length=2, layers=1, heads=4)
    return mapper.eval().requires_grad_(False)


@pytest.fixture
def policy(demo_clip, lm_folder):
    return MapperPolicy(demo_clip(), random_mapper(), load_language_model(str(lm_folder("opt"))))


@pytest.fixture
def make_captioner(demo_clip, lm_folder):
    """A tiny captioner of settings, put together as the entry script does. precision: what it is told to compute in."""

    def make(rewards=("demo-reward",), precision="fp32", **settings):
        small = {"checkpoint": "tiny", "sample_k": 3, "steps": 2, "lr": 1e-2, "max_new_tokens": 5, "beams": 2}
        config = CaptionConfig(**{**small, **settings})
        config.check()
        models = [demo_clip(reward) if isinstance(reward, str) else reward for reward in rewards]
        lm = load_language_model(str(lm_folder("opt")))
        captioner = Captioner.of(config, CaptionModels(demo_clip(), models, random_mapper(), lm))
        if captioner.episodes is not None:
            captioner.episodes.precision = precision
        return captioner

    return make


@pytest.fixture
def view():
    """The centre crop of an image, (1, 3, H, W)."""
    return torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)


@pytest.fixture
def checkpoint(tmp_path):
    """A mapper for the tiny language models, as a training leaves it."""
    file = tmp_path / "mapper.safetensors"
    save_mapper(file, random_mapper(), {"heads": 4, "width": WIDTH})
    return file


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Eight scenes, clean/<n>.png, and clean.json."""
    folder = tmp_path_factory.mktemp("world")
    write_retrieval(folder, "clean", 8, seed=1)
    return folder


@pytest.fixture
def data(world, tmp_path):
    return shutil.copytree(world, tmp_path / "data")


@pytest.fixture
def caption(tmp_path, data, checkpoint, lm_folder):
    """Runs caption/main.py in this process on the scenes; returns what it left."""

    def run(*flags, output="run"):
        models = ["--student", "demo-student", "--reward", "demo-reward", "--checkpoint", str(checkpoint)]
        models += ["--language-model", str(lm_folder("opt")), "--data", str(data), "--datasets", "json:clean"]
        small = ["--sample-k", "3", "--steps", "2", "--lr", "1e-3", "--beams", "2", "--max-new-tokens", "6"]
        where = ["--output", str(tmp_path / output), "--device", "cpu", "--workers", "0"]
        main([*models, *small, *where, *flags])
        return Results(tmp_path / output)

    return run
