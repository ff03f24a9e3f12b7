"""The benchmarks' published computations against the authors' numbers (tests/golden/README.md tells the tolerances)."""

import copy
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import reference, reference_votes
from rlcf.clip.loading import load_clip

DATA = Path(__file__).parent.parent / "golden" / "data"
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
ADAMW = {"steps": 3, "weight_decay": 5e-4, "eps": 1e-8}
CONFIDENT = ADAMW | {"keep": 6}  # a tenth of 64 views
RETRIEVAL = {"steps": 3, "lr": 1e-4, "weight_decay": 5e-4, "eps": 1e-6, "k": 4}


def golden(name):
    with np.load(DATA / f"{name}.npz") as arrays:
        return {key: arrays[key] for key in arrays.files}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The authors' tiny student and reward model, as open_clip builds them."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def load(name):
        file = folder / f"{name}.pt"
        torch.save({key: torch.from_numpy(value).float() for key, value in golden(name).items()}, file)
        return load_clip(str(file)).model

    return load("student"), load("rewardA")


@pytest.fixture(scope="module")
def views():
    return torch.from_numpy(golden("views")["views"])


@pytest.fixture(autouse=True)
def weights_stay(models):
    """After each test the weights, and which of them require gradients, are what they were, bit for bit."""
    before = [copy.deepcopy(model.state_dict()) for model in models]
    yield
    for model, weights in zip(models, before, strict=True):
        assert all(torch.equal(weights[name], now) for name, now in model.state_dict().items())
        assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())


def start_of(model):
    return copy.deepcopy(model.state_dict())


def tokens_of(prompt):
    names = [str(name).replace("_", " ") for name in golden("views")["classnames"]]
    return open_clip.tokenize([f"{prompt} {name}." for name in names])


@torch.no_grad()
def text_features(model, tokens):
    return F.normalize(model.encode_text(tokens), dim=-1)


def starting_context(student):
    return student.token_embedding(open_clip.tokenize(["a photo of a"])[0, 1:5]).detach()


def test_image_encoder_equals_the_authors(models, views):
    student, reward = models
    classes = [text_features(model, tokens_of("a_photo_of_a")) for model in models]  # underscores, as published
    expected = golden("d_rlcf_encoder_lr1e-05")
    for sample in range(3):
        images = views[sample]
        before, after = reference.adapt_image_encoder(
            student, reward, *classes, images, images, start_of(student), **CONFIDENT, lr=1e-5, k=3
        )
        np.testing.assert_allclose(before, expected["view_logits"][sample, 0], atol=1e-4, rtol=0)
        np.testing.assert_allclose(after, expected["final_logits"][sample, 0], atol=1e-4, rtol=0)
        assert (after - before).abs().max() > 1e-2


def test_prompt_equals_the_authors(models, views):
    student, reward = models
    tokens, expected = tokens_of("a photo of a"), golden("b_rlcf_prompt")
    of_reward, context = text_features(reward, tokens), starting_context(student)
    for sample in range(3):
        images = views[sample]
        before, after = reference.adapt_prompt(
            student, reward, tokens, of_reward, context, images, images, **CONFIDENT, lr=7e-3, k=3
        )
        np.testing.assert_allclose(before, expected["view_logits"][sample, 0], atol=1e-4, rtol=0)
        np.testing.assert_allclose(after, expected["final_logits"][sample, 0], atol=1e-4, rtol=0)
    assert torch.equal(context, starting_context(student))


def test_tpt_equals_the_authors(models, views):
    student, _ = models
    expected, context = golden("c_tpt_prompt_1step_lr5e-3"), starting_context(student)
    hyper = CONFIDENT | {"steps": 1, "lr": 5e-3, "weight_decay": 1e-2}
    for sample in range(3):
        _, after = reference.adapt_prompt(
            student, None, tokens_of("a photo of a"), None, context, views[sample], None, **hyper, objective="tpt"
        )
        np.testing.assert_allclose(after, expected["final_logits"][sample, 0], atol=1e-4, rtol=0)


def test_votes_and_modes_equal_the_authors():
    arrays = golden("l_training_free")
    features, classes, scale = (
        torch.from_numpy(arrays[key]) for key in ("student_views", "student_text", "logit_scale")
    )
    for sample, views in enumerate(features):
        modes = reference_votes.mode_logits(views, classes, scale)
        np.testing.assert_allclose(modes, arrays["mta_logits"][sample], atol=1e-4, rtol=0)
        counts = reference_votes.votes(views, classes, scale)
        np.testing.assert_array_equal(counts, arrays["zero_g30_votes"][sample].round())


def retrieval_inputs():
    arrays = golden("h_ret_inputs_zeroshot")
    images, tokens = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["tokens"])
    return images, tokens, arrays


def test_image_query_equals_the_authors(models):
    student, reward = models
    images, tokens, zero_shot = retrieval_inputs()
    gallery = [text_features(model, tokens) for model in models]
    expected = golden("h_ret_policy_image2text")["score_i2t"]
    for query in range(4):
        image = images[query : query + 1]
        before, after = reference.adapt_image_query(
            student, reward, *gallery, image, image, start_of(student), **RETRIEVAL
        )
        np.testing.assert_allclose(before, zero_shot["zs_i2t"][query], atol=1e-4, rtol=0)
        np.testing.assert_allclose(after, expected[query], atol=8e-4, rtol=0)


def test_text_query_equals_the_authors(models):
    student, reward = models
    images, tokens, zero_shot = retrieval_inputs()
    with torch.no_grad():
        gallery = [F.normalize(model.encode_image(images), dim=-1) for model in models]
    expected = golden("h_ret_policy_text2image")["score_t2i"]
    for query in range(4):
        before, after = reference.adapt_text_query(
            student, reward, *gallery, tokens[query : query + 1], start_of(student), **RETRIEVAL
        )
        np.testing.assert_allclose(before, zero_shot["zs_t2i"][query], atol=1e-4, rtol=0)
        np.testing.assert_allclose(after, expected[query], atol=8e-4, rtol=0)


def test_views_are_normalised_and_the_first_is_the_centre_crop(tmp_path):
    pixels = np.full((24, 40, 3), 100, np.uint8)
    pixels[:, 16:24] = 200
    Image.fromarray(pixels).save(tmp_path / "stripe.png")
    views = reference.make_views(tmp_path / "stripe.png", 5, 24, MEAN, STD)
    assert views.shape == (5, 3, 24, 24)
    plain = views[0] * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
    np.testing.assert_allclose(plain[:, :, 8:16], 200 / 255, atol=1e-6)
    np.testing.assert_allclose(plain[:, :, :8], 100 / 255, atol=1e-6)
    assert not torch.equal(views[1], views[2])


def test_the_loops_import_nothing_of_the_project():
    source = Path(reference.__file__).read_text()
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported.isdisjoint({"rlcf", "classification", "retrieval", "caption", "clipscore", "benchmarks"})
