"""Captioning against the authors' numbers, through the project's own functions (README.md tells the tolerances)."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from caption.captioner import Captioner, CaptionModels
from caption.clip_model import MapperPolicy
from caption.config import CaptionConfig
from caption.language_model import load_language_model
from caption.mapper import read_checkpoint
from caption.training.examples import gaussian_noise, uniform_noise
from caption.training.training import caption_loss

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
    tokenizer = Tokenizer(WordLevel({"<unk>": 0, "<pad>": 1, "</s>": 2}, unk_token="<unk>"))
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "opt")
    return folder


@pytest.fixture
def models(clip, folder, expected):
    checkpoint = read_checkpoint(str(folder / "ckpt-latest.pt"))
    lm = load_language_model(str(folder / "opt"), weights=checkpoint.language_model)
    lm = dataclasses.replace(lm, tokenizer=GoldenTokenizer(expected))
    return CaptionModels(clip("student"), [clip("rewardA")], checkpoint.build_mapper(lm.width), lm)


def test_mapper_equals_the_authors(models, expected):
    assert list(models.mapper.state_dict()) == list(expected["mapper_keys"])
    with torch.no_grad():
        prefix = models.mapper(expected["mapper_in"])
    np.testing.assert_allclose(prefix, expected["mapper_out"], atol=1e-5, rtol=0)


def test_token_log_likelihood_equals_the_authors(models, expected):
    ids = expected["train_tokens"]
    with torch.no_grad():
        prefix = models.mapper(expected["mapper_in"])
        log_likelihood = models.lm.token_log_likelihood(prefix, ids, (ids > 0).long())
    wanted = expected["clipcap_logits"].log_softmax(dim=-1).gather(-1, ids[..., None])[..., 0]
    np.testing.assert_allclose(log_likelihood[ids > 0], wanted[ids > 0], atol=1e-5, rtol=0)


def test_training_loss_and_gradients_equal_the_authors(models, expected):
    ids = expected["train_tokens"]
    models.mapper.requires_grad_(True)
    loss = caption_loss(models.lm, models.mapper, expected["mapper_in"], ids, (ids > 0).long())
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected["clipcap_loss"].item(), atol=1e-6)
    for name, parameter in models.mapper.named_parameters():
        np.testing.assert_allclose(parameter.grad, expected[f"clipcap_grad/{name}"], atol=1e-6, rtol=1e-4)
    assert not any(parameter.requires_grad for parameter in models.lm.model.parameters())


def test_capdec_noise_and_loss_equal_the_authors(models, expected):
    ids, features, normal = expected["train_tokens"], expected["mapper_in"], expected["noise"]
    disturbed = {
        "gauss_norm": gaussian_noise(features, normal, variance=0.016),
        "uniform": uniform_noise(features, normal, expected["uniform_u"], variance=0.016),
    }
    for kind, inputs in disturbed.items():
        np.testing.assert_allclose(inputs, expected[f"capdec_{kind}_prefix"], atol=1e-6, rtol=0)
        with torch.no_grad():
            loss = caption_loss(models.lm, models.mapper, inputs, ids, (ids > 0).long())
        np.testing.assert_allclose(loss.item(), expected[f"capdec_{kind}_loss"].item(), atol=1e-6)


class GoldenPolicy(MapperPolicy):
    """Generates no caption: the sampled ones are the golden ones, a set a step in turn, the final ones are anything.

    prefixes, beams: of each generation; adapted: the mapper as it answers, of each episode.
    """

    def __init__(self, models, captions):
        super().__init__(models.student, models.mapper, models.lm)
        self.captions, self.prefixes, self.beams, self.adapted = captions, [], [], []

    def sample(self, prefix, k, *_):
        step = self.beams.count(k) % 3
        self._record(prefix, k)
        return [[str(text) for text in self.captions[f"caps{step}_text"]]]

    def caption(self, prefix, beams=5, max_new_tokens=50):
        self._record(prefix, beams)
        return ["a dog"] * len(prefix)

    def answer(self, features):
        self.adapted.append({key: value.clone() for key, value in self.mappers[0].state_dict().items()})
        return super().answer(features)

    def _record(self, prefix, beams):
        self.prefixes.append(prefix[-1].detach())
        self.beams.append(beams)


def per_step(answers, member):
    """The trace's numbers, stacked over the steps of all episodes."""
    return np.stack([np.ravel(getattr(step, member)) for answer in answers for step in answer.trace])


@pytest.mark.parametrize("name", RUNS)
def test_adaptation_equals_the_authors(name, models, expected):
    settings = {"weight_decay": 0.0, "eps": 1e-6, "sample_k": 4, "score_padding": True}
    config = CaptionConfig(checkpoint="golden", **settings, **RUNS[name])
    wanted = {key.removeprefix(f"{name}/"): value for key, value in expected.items() if key.startswith(f"{name}/")}
    captioner = Captioner.of(config, models)
    captioner.policy = policy = GoldenPolicy(models, expected)  # of the same mapper

    answers = captioner.adapt([(0, expected["images"][:1])])
    for key, value in policy.adapted[-1].items():
        if f"after0/{key}" in wanted:
            # Adam moves a weight by up to lr a step, however small its gradient: rounding shows where that is near 0.
            np.testing.assert_allclose(value, wanted[f"after0/{key}"], atol=3 * config.lr, rtol=0)
            assert (value - wanted[f"after0/{key}"]).abs().median() < 1e-6

    answers += captioner.adapt([(1, expected["images"][1:])])
    assert policy.beams == wanted["num_beams"].tolist()
    np.testing.assert_allclose(torch.stack(policy.prefixes), wanted["query_embeds"][:, 0], atol=3e-5, rtol=0)
    np.testing.assert_allclose(per_step(answers, "loss").ravel(), wanted["loss"].ravel(), atol=2e-6, rtol=0)
    np.testing.assert_allclose(per_step(answers, "advantages"), wanted["rewards"], atol=2e-6, rtol=0)
