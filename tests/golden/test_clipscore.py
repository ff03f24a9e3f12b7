"""CLIPScore against the authors' numbers, through the command as a user runs it and the functions below it."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipscore import evaluate, match_captions
from clipscore.captions import PREFIX
from clipscore.main import main
from rlcf.clip.loading import load_clip
from rlcf.run.images import encode_images, read_image

from .conftest import DATA

IMAGES = DATA / "images"


@pytest.fixture(scope="module")
def j(golden):
    return golden("j_clipscore")


@pytest.fixture(scope="module")
def b32(golden, tmp_path_factory):
    """A tiny model in ViT-B/32's place, as a checkpoint file."""
    file = tmp_path_factory.mktemp("b32") / "ViT-B-32.pt"
    torch.save({key: torch.from_numpy(value).float() for key, value in golden("clipscore_b32").items()}, file)
    return file


@pytest.fixture(scope="module")
def clip(b32):
    return load_clip(str(b32))


@pytest.fixture(scope="module")
def candidates(j):
    return dict(zip(j["image_paths"].tolist(), j["cands"].tolist(), strict=True))


@pytest.fixture(scope="module")
def references(j):
    return {name: refs.split("||") for name, refs in zip(j["image_paths"].tolist(), j["refs"].tolist(), strict=True)}


def test_images_are_preprocessed_as_published(j, clip):
    views = torch.stack([clip.centre_view(read_image(IMAGES / f"img0{i}.png")) for i in range(2)])
    np.testing.assert_allclose(clip.prepare(views)[:, :, ::4, ::4].numpy(), j["preprocessed"], atol=1e-6)


def test_captions_are_tokenised_as_published(j, clip, candidates):
    tokens = clip.tokenize([PREFIX + caption for caption in candidates.values()])
    np.testing.assert_array_equal(tokens.numpy(), j["tokens"])


def test_image_and_caption_features_are_the_published_ones(j, clip, candidates):
    (images,) = encode_images([clip], [IMAGES / name for name in candidates], workers=0)
    texts = clip.encode_text([PREFIX + caption for caption in candidates.values()])
    np.testing.assert_allclose(images.numpy(), F.normalize(torch.from_numpy(j["image_feats"]), dim=-1), atol=2e-6)
    np.testing.assert_allclose(texts.numpy(), j["cand_feats_normed"], atol=2e-6)


def test_clipscore_and_refclipscore_are_the_published_ones(j, clip, candidates, references):
    found = evaluate(match_captions(candidates, IMAGES, references), clip, with_java=False, workers=0)
    each = list(found.per_instance.values())
    np.testing.assert_allclose([row["CLIPScore"] for row in each], j["clipscore"], atol=5e-6)
    np.testing.assert_allclose([row["RefCLIPScore"] for row in each], j["refclipscore"], atol=5e-6)
    assert found.scores["CLIPScore"] == pytest.approx(float(j["clipscore_mean"]), abs=5e-6)


def test_the_command_gives_the_published_numbers_for_a_model_named_as_the_field_does(j, b32, candidates, tmp_path):
    file, each = tmp_path / "candidates.json", tmp_path / "each.json"
    file.write_text(json.dumps(candidates))
    flags = ["--clip-root", b32.parent, "--save-per-instance", each, "--workers", 0, "--device", "cpu"]
    main(list(map(str, [file, IMAGES, *flags])))
    found = json.loads(each.read_text())
    assert list(found) == j["image_paths"].tolist()
    np.testing.assert_allclose([row["CLIPScore"] for row in found.values()], j["clipscore"], atol=5e-6)
