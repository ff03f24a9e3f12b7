"""Captioning against the authors' numbers, through the project's own functions (README.md tells the tolerances)."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import caption.captioner
from caption import main
from caption.captioner import Captioner
from caption.language_model import load_language_model
from caption.main import CaptionConfig, adapt
from caption.mapper import read_checkpoint
from caption.reward import Rewards
from caption.train import caption_loss
from caption.training.examples import gaussian_noise, uniform_noise
from rlcf.adapt.episode import Episodes

OPT = {
    "model_type": "opt",
    "vocab_size": 600,
    "hidden_size": 64,
    "word_embed_proj_dim": 64,
    "ffn_dim": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "do_layer_norm_before": True,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
RUNS = {
    "tta": {"lr": 1e-3, "steps": 3},
    "tta_lr5e-6": {"lr": 5e-6, "steps": 4},
    "tta_momentum": {"lr": 1e-3, "steps": 3, "momentum": True, "momentum_every": 1, "momentum_decay": 0.5},
}


@pytest.fixture(scope="session")
def expected(golden):
    return {
        key: torch.from_numpy(value) if value.dtype.kind in "fi" else value
        for key, value in golden("i_caption").items()
    }


class GoldenTokenizer:
    """The authors' numbers of the words; some words share one."""

    pad_token_id = 1

    def __init__(self, captions):
        self.ids = {}
        for step in range(3):
            for text, ids in zip(captions[f"caps{step}_text"], captions[f"caps{step}_ids"], strict=True):
                self.ids |= dict(zip(str(text).split(), ids[1:].tolist(), strict=False))

    def __call__(self, texts, add_special_tokens):
        return {"input_ids": [[self.ids[word] for word in text.split()] for text in texts]}


@pytest.fixture(scope="session")
def folder(golden, tmp_path_factory):
    """ckpt-latest.pt as published, and opt/ with the language model's config and a tokenizer, but no weights."""
    folder = tmp_path_factory.mktemp("captioner")
    state = {key: torch.from_numpy(value).float() for key, value in golden("tiny_cap").items()}
    torch.save({"state_dict": state, "epoch": 9}, folder / "ckpt-latest.pt")
    (folder / "opt").mkdir()
    (folder / "opt" / "config.json").write_text(json.dumps(OPT))
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "</s>": 2}, unk_token="<unk>"))
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "opt")
    return folder


@pytest.fixture
def captioner(clip, folder, expected):
    checkpoint = read_checkpoint(str(folder / "ckpt-latest.pt"))
    lm = load_language_model(str(folder / "opt"), weights=checkpoint.language_model)
    lm = dataclasses.replace(lm, tokenizer=GoldenTokenizer(expected))
    return Captioner(clip("student"), checkpoint.build_mapper(lm.width), lm)


def test_mapper_equals_the_authors(captioner, expected):
    assert list(captioner.mappers[0].state_dict()) == list(expected["mapper_keys"])
    with torch.no_grad():
        prefix = captioner.mappers[0](expected["mapper_in"])
    np.testing.assert_allclose(prefix, expected["mapper_out"], atol=1e-5, rtol=0)


def test_token_log_likelihood_equals_the_authors(captioner, expected):
    ids = expected["train_tokens"]
    with torch.no_grad():
        prefix = captioner.mappers[0](expected["mapper_in"])
        log_likelihood = captioner.lm.token_log_likelihood(prefix, ids, (ids > 0).long())
    wanted = expected["clipcap_logits"].log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    np.testing.assert_allclose(log_likelihood[ids > 0], wanted[ids > 0], atol=1e-5, rtol=0)


def test_training_loss_and_gradients_equal_the_authors(captioner, expected):
    ids = expected["train_tokens"]
    loss = caption_loss(captioner.lm, captioner.mappers[0], expected["mapper_in"], ids, (ids > 0).long())
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected["clipcap_loss"].item(), atol=1e-6)
    for name, parameter in captioner.mappers[0].named_parameters():
        np.testing.assert_allclose(parameter.grad, expected[f"clipcap_grad/{name}"], atol=1e-6, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in captioner.lm.model.parameters())


def test_capdec_noise_and_loss_equal_the_authors(captioner, expected):
    ids, features, normal = expected["train_tokens"], expected["mapper_in"], expected["noise"]
    disturbed = {
        "gauss_norm": gaussian_noise(features, normal, variance=0.016),
        "uniform": uniform_noise(features, normal, expected["uniform_u"], variance=0.016),
    }
    for kind, inputs in disturbed.items():
        np.testing.assert_allclose(inputs, expected[f"capdec_{kind}_prefix"], atol=1e-6, rtol=0)
        with torch.no_grad():
            loss = caption_loss(captioner.lm, captioner.mappers[0], inputs, ids, (ids > 0).long())
        np.testing.assert_allclose(loss.item(), expected[f"capdec_{kind}_loss"].item(), atol=1e-6)


@pytest.fixture
def recorded(monkeypatch, captioner, expected):
    """What happens on the way: prefixes and mappers, beams, advantages, losses. No caption is generated."""
    seen = {"prefixes": [], "mappers": [], "beams": [], "advantages": [], "losses": []}
    make_prefix = captioner.prefix

    def prefix(features):
        seen["mappers"].append({key: value.clone() for key, value in captioner.mappers[0].state_dict().items()})
        return make_prefix(features)

    def beam_search(lm, prefix, beams, returned=1, max_new_tokens=50):
        """Sampled captions are the golden ones, a set a step in turn; the two final ones are anything."""
        step = sum(steps == 4 for steps in seen["beams"])
        seen["prefixes"].append(prefix[-1])
        seen["beams"].append(beams)
        if beams == 5:
            return [["a dog"]] * len(prefix)
        return [[str(text) for text in expected[f"caps{step % 3}_text"]]]

    def record(key, function):
        def wrapped(*arguments):
            seen[key].append(function(*arguments))
            return seen[key][-1]

        return wrapped

    monkeypatch.setattr(captioner, "prefix", prefix)
    monkeypatch.setattr(main, "beam_search", beam_search)
    monkeypatch.setattr(caption.captioner, "beam_search", beam_search)
    monkeypatch.setattr(main, "advantages", record("advantages", main.advantages))
    monkeypatch.setattr(main, "objective", record("losses", main.objective))
    return seen


@pytest.mark.parametrize("name", RUNS)
def test_adaptation_equals_the_authors(name, captioner, clip, expected, recorded):
    settings = {"weight_decay": 0.0, "eps": 1e-6, "sample_k": 4, "score_padding": True}
    config = CaptionConfig(checkpoint="golden", **settings, **RUNS[name])
    wanted = {key.removeprefix(f"{name}/"): value for key, value in expected.items() if key.startswith(f"{name}/")}
    episodes = Episodes.from_config(config, captioner.tuned, captioner.buffers, "fp32")
    rewards = Rewards([clip("rewardA")], [1.0])

    adapt(config, captioner, rewards, episodes, [(0, expected["images"][:1])])
    for key, value in recorded["mappers"][-1].items():
        if f"after0/{key}" in wanted:
            # Adam moves a weight by up to lr a step, however small its gradient: rounding shows where that is near 0.
            np.testing.assert_allclose(value, wanted[f"after0/{key}"], atol=3 * config.lr, rtol=0)
            assert (value - wanted[f"after0/{key}"]).abs().median() < 1e-6

    adapt(config, captioner, rewards, episodes, [(1, expected["images"][1:])])
    assert recorded["beams"] == wanted["num_beams"].tolist()
    prefixes, losses = (torch.stack(recorded[key]).detach() for key in ("prefixes", "losses"))
    np.testing.assert_allclose(prefixes, wanted["query_embeds"][:, 0], atol=3e-5, rtol=0)
    np.testing.assert_allclose(losses[:, 0], wanted["loss"].ravel(), atol=2e-6, rtol=0)
    np.testing.assert_allclose(torch.cat(recorded["advantages"])[:, 0], wanted["rewards"], atol=2e-6, rtol=0)
