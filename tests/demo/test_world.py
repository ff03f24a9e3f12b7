"""The embedded world: what the models were trained on and what they are tested on do not meet."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from demo import art, styles
from demo import train as demo_train
from demo.train import RECIPES, Checkpoint, Phase, train
from demo.world import TEST_SEED, VALIDATION_SEED, classification_images, write_classification
from rlcf.errors import UserError


def test_no_style_is_both_trained_on_and_tested_with():
    trained = set(styles.AUGMENTATIONS)
    tested = {change for _, change in styles.TEST_STYLES.values()}
    assert not trained & tested
    assert {name for name, (_, change) in styles.TEST_STYLES.items() if change is styles.clean} == {"clean", "noto"}


def test_no_model_was_trained_on_the_test_artists_drawings():
    trained = {artist for recipe in RECIPES.values() for artist in recipe.artists}
    assert not trained & set(art.TEST_ARTISTS)
    assert set(RECIPES["student"].artists) < set(RECIPES["reward"].artists)
    assert RECIPES["student"].seed != RECIPES["reward"].seed and VALIDATION_SEED != TEST_SEED


def test_every_style_changes_the_clean_picture_and_stays_in_range():
    clean, labels = classification_images("clean", 1, seed=3)
    for style, (artist, change) in styles.TEST_STYLES.items():
        changed = change(clean.clone(), np.random.default_rng(0)).clamp(0, 1)
        assert changed.shape == clean.shape and labels.tolist() == list(range(100))
        assert torch.equal(changed, clean) == (style in ("clean", "noto")), (style, artist)


def test_the_same_seed_writes_the_same_pictures(tmp_path):
    for folder in ("a", "b"):
        write_classification(tmp_path / folder, "fog", 1, seed=5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.png"))
    assert len(files) == 100
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)


def test_the_embedded_clips_are_small_and_know_the_clean_pictures(demo_clip):
    pictures, labels = classification_images("clean", 1, seed=VALIDATION_SEED)
    for name in ("demo-student", "demo-reward"):
        clip = demo_clip(name)
        classes = clip.encode_text([f"a photo of a {thing}." for thing in art.NAMES])
        with torch.no_grad():
            answers = (clip.encode_image(clip.prepare(pictures)) @ classes.T).argmax(dim=-1)
        assert (answers == labels).float().mean() > 0.9


def test_a_stopped_training_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(demo_train, "SAVED_EVERY", 1)
    recipe = replace(RECIPES["reward"], phases=(Phase(2, 1e-3, crops=False), Phase(2, 1e-3, crops=True)))
    monkeypatch.setitem(RECIPES, "reward", recipe)
    with torch.enable_grad():
        whole = train("reward", None, tmp_path / "whole").state_dict()
    saved, save = [], Checkpoint.save

    def stop_after_three(*args, **parts):
        save(*args, **parts)
        saved.append(1)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", stop_after_three)
    with torch.enable_grad(), pytest.raises(KeyboardInterrupt):
        train("reward", None, tmp_path / "stopped")
    with pytest.raises(UserError, match=r"training.pt is of another training .*; remove it"):
        train("reward", 3, tmp_path / "stopped")
    with torch.enable_grad():
        again = train("reward", None, tmp_path / "stopped").state_dict()
    assert len(saved) == 4 and not (tmp_path / "stopped/training.pt").exists()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
