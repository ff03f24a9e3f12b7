import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from caption.language_model import load_language_model
from caption.mapper import read_checkpoint
from caption.train import main
from caption.training import run as training_run
from caption.training import training
from caption.training.examples import gaussian_noise, make_examples, split_examples, uniform_noise
from caption.training.features import Features, read_features, write_features
from rlcf.errors import UserError

CAPTIONS = [
    f"a {first} {relation} a {second}"
    for first in ("dog", "cat")
    for relation in ("above", "below")
    for second in ("key", "car", "pig")
]
TINY = ["--prefix-length", "3", "--clip-length", "2", "--layers", "1", "--heads", "4", "--device", "cpu"]
SHORT = ["--epochs", "3", "--batch-size", "5", "--warmup", "2", "--lr", "1e-2", "--validation-share", "0.3"]


def make_features(folder, width=16, image=True, text=True, scale=1.0):
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    images, texts = (scale * torch.randn(n, width, generator=generator) for n in (6, len(CAPTIONS)))
    index = [i // 2 for i in range(len(CAPTIONS))]
    held = Features(CAPTIONS, index, list(range(len(CAPTIONS))), images if image else None, texts if text else None)
    write_features(folder, held)
    return folder


@pytest.fixture
def features(tmp_path):
    return make_features(tmp_path / "features")


@pytest.fixture
def fit(tmp_path, features, lm_folder):
    """Runs caption/train.py in this process; returns the run folder."""

    def run(*flags, output="run"):
        where = ["--data", str(features), "--language-model", str(lm_folder("opt"))]
        main([*where, "--output", str(tmp_path / output), *TINY, *SHORT, *flags])
        return tmp_path / output

    return run


def weights(folder):
    return torch.load(folder / "ckpt-latest.pt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("method", ["clipcap", "capdec"])
def test_the_loss_falls_and_is_recorded(method, fit):
    folder = fit("--method", method, "--epochs", "8")
    history = json.loads((folder / "loss.json").read_text())
    assert history["train"][-1][1] < 0.95 * history["train"][0][1]
    assert [step for step, _ in history["validation"]] == [2 * epoch for epoch in range(1, 9)]
    with Image.open(folder / "loss.png") as picture:
        assert picture.width > 300
    assert "epoch 8 of 8: loss" in (folder / "log.txt").read_text()


def test_a_stopped_training_ends_with_the_weights_of_an_uninterrupted_one(fit, monkeypatch):
    whole = weights(fit("--method", "capdec", output="whole"))
    save, saves = training.Training.save, []

    def stopping(self):
        save(self)
        saves.append(self.epoch)
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Training, "save", stopping)
    with pytest.raises(KeyboardInterrupt):
        fit("--method", "capdec")
    again = weights(fit("--method", "capdec"))
    assert saves == [1, 2, 3]
    assert all(torch.equal(again[key], value) for key, value in whole.items())


def test_the_same_seed_gives_the_same_weights_and_another_does_not(fit):
    first, second, third = (
        weights(fit("--seed", seed, output=name)) for seed, name in (("0", "a"), ("0", "b"), ("1", "c"))
    )
    key = "clip_project.linear.weight"
    assert torch.equal(first[key], second[key]) and not torch.equal(first[key], third[key])


def test_a_finished_training_is_not_begun_again(fit, monkeypatch):
    before = weights(fit())
    monkeypatch.setattr(training.Training, "run_epoch", lambda self: pytest.fail("trained again"))
    assert all(torch.equal(value, before[key]) for key, value in weights(fit()).items())


def test_another_config_does_not_mix_with_a_run(fit):
    fit("--epochs", "1", "--warmup", "0")
    with pytest.raises(UserError, match="another config: epochs"):
        fit("--warmup", "0")


def test_features_of_other_sizes_do_not_mix_with_a_run(fit, features):
    fit()
    for file in features.iterdir():
        file.unlink()
    features.rmdir()
    make_features(features, width=8)
    with pytest.raises(UserError, match=r"run was begun with other features than there are now"):
        fit()


def test_the_mapper_is_a_captioners_checkpoint(fit):
    for name, extra in (("transformer", []), ("mlp", ["--mapper", "mlp"]), ("half", ["--save-half"])):
        folder = fit(*extra, "--epochs", "1", "--warmup", "0", output=name)
        checkpoint = read_checkpoint(str(folder))
        assert checkpoint.build_mapper(width=32)(torch.randn(2, 16)).shape == (2, 3, 32)
        assert checkpoint.described["method"] == "clipcap"
    assert {value.dtype for value in load_file(folder / "mapper.safetensors").values()} == {torch.float16}


def test_capdec_needs_no_image_features_and_clipcap_no_texts(tmp_path, fit):
    texts = make_features(tmp_path / "texts", image=False)
    images = make_features(tmp_path / "images", text=False)
    fit("--method", "capdec", "--data", str(texts), output="capdec")
    fit("--method", "clipcap", "--data", str(images), output="clipcap")
    with pytest.raises(UserError, match="texts holds no image features"):
        fit("--method", "clipcap", "--data", str(texts), output="none")


def test_only_the_mapper_is_trained(fit, monkeypatch):
    kept = []
    load = training_run.load_language_model
    monkeypatch.setattr(training_run, "load_language_model", lambda *given: kept.append(load(*given)) or kept[-1])
    folder = fit("--epochs", "1", "--warmup", "0")
    assert not any(p.requires_grad or p.grad is not None for p in kept[0].model.parameters())
    assert all(key.startswith("clip_project.") for key in weights(folder))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(fit, monkeypatch):
    loss, calls = training.caption_loss, []

    def breaking(*given):
        calls.append(1)
        return loss(*given) * (torch.nan if len(calls) > 4 else 1.0)

    monkeypatch.setattr(training, "caption_loss", breaking)
    with pytest.raises(
        UserError, match=r"the loss of step 1 in epoch 2 is not finite; .*ckpt-latest.pt of epoch 1 is kept"
    ):
        fit("--validation-share", "0.5")
    monkeypatch.setattr(training, "caption_loss", loss)
    resumed = weights(fit("--validation-share", "0.5"))
    assert all(
        torch.equal(value, resumed[key]) for key, value in weights(fit("--validation-share", "0.5", output="b")).items()
    )


def test_an_epoch_that_ends_with_weights_that_are_not_finite_is_not_kept(fit, tmp_path):
    with pytest.raises(UserError, match=r"in epoch 1 is not finite; nothing is kept yet"):
        fit("--lr", "1e30", "--warmup", "0", "--batch-size", "12")
    assert not (tmp_path / "run" / "ckpt-latest.pt").exists()


def test_validation_features_may_be_given_and_must_be_as_wide(fit, tmp_path):
    narrow = make_features(tmp_path / "narrow", width=8)
    with pytest.raises(UserError, match=r"features of .*narrow are 8 wide, those of .*features 16"):
        fit("--validation", str(narrow))
    other = make_features(tmp_path / "other", scale=2.0)
    folder = fit("--validation", str(other), "--epochs", "1", "--warmup", "0")
    assert len(json.loads((folder / "loss.json").read_text())["validation"]) == 1


def test_captions_of_an_image_are_learnt_from_or_validated_with_together(features, lm_folder):
    lm = load_language_model(str(lm_folder("opt")))
    held = read_features(str(features))
    first, second = split_examples(make_examples(lm, held, "image", True, ""), held, share=0.5, seed=0)
    assert len(first) == len(second) == 6
    assert not {tuple(row.tolist()) for row in first.features} & {tuple(row.tolist()) for row in second.features}


def test_captions_end_with_the_token_that_stops_generation_unless_told_otherwise(features, lm_folder):
    lm, held = load_language_model(str(lm_folder("gpt2"))), read_features(str(features))
    ends = {end: make_examples(lm, held, "image", end, "").rows[0] for end in (True, False)}
    assert ends[True] == [*ends[False], lm.stops[0]] and ends[False][0] == lm.bos


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--warmup", "6"], "--warmup 6 is not below the 6 steps"),
        (["--heads", "5"], "--heads 5 does not divide the language model's width 32"),
        (["--data", "nowhere"], "no features nowhere"),
        (["--data", ""], "no features; give --data"),
        (["--method", "clip"], "'clip' is not one of clipcap, capdec"),
    ],
)
def test_a_mistake_is_told(flags, told, fit):
    with pytest.raises(UserError, match=told):
        fit(*flags)


def test_the_noise_has_the_variance_that_is_asked_for():
    features = torch.nn.functional.normalize(torch.randn(1, 512), dim=-1).expand(4000, -1)
    normal, uniform = torch.randn(4000, 512), torch.rand(4000)
    expected = 1.0 / np.sqrt(1.0 + 512 * 0.016)  # the share of the feature in a sum of squares
    cosine = (gaussian_noise(features, normal, 0.016) * features).sum(dim=-1)
    assert abs(cosine.mean().item() - expected) < 0.01
    moved = uniform_noise(features, normal, uniform, 0.016) * (features[:1].norm())
    assert (moved - features).norm(dim=-1).max() < 2 * np.sqrt(0.016)
    assert torch.equal(gaussian_noise(features, normal, 0.0), torch.nn.functional.normalize(features, dim=-1))


def test_the_ball_is_filled_evenly():
    features = torch.nn.functional.normalize(torch.ones(20000, 2), dim=-1)
    radius = 0.05 * torch.rand(20000, generator=torch.Generator().manual_seed(0)) ** 0.5
    uniform = (radius / 0.05) ** 2
    assert (uniform < 0.25).float().mean().item() == pytest.approx(0.25, abs=0.02)  # a quarter of the disc's area
    angles = uniform_noise(features, torch.randn(20000, 2), uniform, 0.05**2)
    spread = torch.atan2(angles[:, 1], angles[:, 0]) - np.pi / 4
    assert spread.std().item() == pytest.approx(0.05 / 2, rel=0.05)  # of one coordinate in a disc: radius / 2
