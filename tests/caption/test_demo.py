"""The embedded language model and captioners."""

import json

import pytest
import torch

from caption.language_model import load_language_model
from demo.art import NAMES
from demo.scenes import Scene, scene_captions
from demo.world import write_caption_training
from rlcf.shipped import ASSETS

MODELS = ("demo-lm", "demo-clipcap", "demo-capdec")


def scene(first, second, relation=0, colour="blue"):
    return Scene(NAMES.index(first), NAMES.index(second), relation, colour)


@pytest.fixture(scope="module")
def lm():
    return load_language_model("demo-lm")


def test_the_embedded_models_are_small():
    for model in MODELS:
        assert all(file.stat().st_size < 5e6 for file in (ASSETS / model).iterdir())


def test_the_language_model_knows_every_word_of_the_scenes(lm):
    texts = [caption for second in ("cat", "apple", "key") for caption in scene_captions(scene("dog", second))]
    ids = [i for row in lm.tokenizer(texts)["input_ids"] for i in row]
    assert lm.tokenizer.unk_token_id not in ids


def test_the_language_model_says_again_what_stands_before(lm):
    """A frozen language model follows a prefix only then."""
    told, same, other = (
        scene("dog", "owl"),
        scene_captions(scene("dog", "owl"))[1],
        scene_captions(scene("pig", "key"))[1],
    )
    ids, _ = lm.tokenize([scene_captions(told)[0]])
    before = lm.model.get_input_embeddings()(torch.cat([ids, torch.tensor([[lm.stops[-1]]])], dim=1))
    with torch.no_grad():
        likely, unlikely = lm.token_log_likelihood(before, *lm.tokenize([same, other])).sum(dim=1)
    assert likely > unlikely + 10


def test_training_scenes_are_none_that_are_tested_with(tmp_path):
    write_caption_training(tmp_path, 200, seed=3)
    entries = json.loads((tmp_path / "train.json").read_text())
    known = {}
    for first in NAMES[:40]:
        for second in NAMES[:40]:
            for relation in range(4):
                known[scene_captions(scene(first, second, relation))[0]] = scene(first, second, relation).held_out
    assert len(entries) == 200 and not any(known[entry["caption"][0]] for entry in entries)
    assert (tmp_path / entries[-1]["image"]).is_file()
