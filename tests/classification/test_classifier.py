"""The Python face: the command line's numbers, one image at a time."""

import json
import shutil

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from classification import Classifier
from rlcf.errors import UserError
from tests.tools import copied, same, write_picture

from .conftest import EMOJI, VIEWS

MODELS = {"student": "demo-student", "reward": ["demo-reward"], "device": "cpu"}
SETTINGS = MODELS | VIEWS


@pytest.fixture
def cat(emoji):
    return emoji / "blur" / "cat" / "0.png"


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "zeroshot"},
        {"method": "tpt", "tune": "prompt"},
        {"method": "rlcf", "tune": "prompt", "steps": 2},
        {"method": "rlcf", "tune": "image-encoder"},
        {"method": "kd", "tune": "norm"},
        {"method": "views"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_an_image_has_the_answer_that_it_has_on_the_command_line(classify, emoji, settings):
    flags = [word for name, value in settings.items() for word in (f"--{name}", value)]
    results = classify("--limit", 4, "--save-logits", *flags)
    classifier = Classifier(EMOJI, **SETTINGS | settings)
    logits = results.logits()
    for row, record in enumerate(results.records()):
        answer = classifier(emoji / "blur" / record["id"], index=record["index"])
        torch.testing.assert_close(answer.zero_shot, logits["zero_shot"][row].softmax(dim=-1), atol=1e-6, rtol=0)
        torch.testing.assert_close(answer.adapted, logits["adapted"][row].softmax(dim=-1), atol=1e-6, rtol=0)
        assert (answer.label, answer.zero_shot_label) == (EMOJI[record["adapted"]], EMOJI[record["zero_shot"]])
        steps = json.loads(json.dumps([step.as_record() for step in answer.trace]))
        assert len(steps) == len(record["steps"])
        for ours, theirs in zip(steps, record["steps"], strict=True):
            assert (ours["views"], ours.get("answers")) == (theirs["views"], theirs.get("answers"))
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


@pytest.mark.parametrize("settings", [{"tune": "prompt"}, {"tune": "norm"}, {"method": "zero"}])
def test_a_file_a_picture_and_a_tensor_have_one_answer(cat, settings):
    classifier = Classifier(EMOJI, **SETTINGS | settings)
    with Image.open(cat) as opened:
        picture = opened.convert("RGB")
    pixels = pil_to_tensor(picture)
    answers = [classifier(image) for image in (cat, str(cat), picture, pixels, pixels / 255.0)]
    assert all(torch.equal(answer.adapted, answers[0].adapted) for answer in answers)


def test_an_answer_holds_labels_distributions_and_the_likeliest_classes(cat):
    answer = Classifier(EMOJI, **SETTINGS)(cat)
    assert answer.labels == list(EMOJI) and answer.finite
    for distribution in (answer.zero_shot, answer.adapted):
        assert distribution.shape == (6,) and distribution.sum().item() == pytest.approx(1)
    assert answer.label == EMOJI[answer.adapted.argmax()]
    assert answer.zero_shot_label == EMOJI[answer.zero_shot.argmax()]


def test_the_trace_has_a_step_each_with_the_kept_views_and_what_was_sampled(cat):
    answer = Classifier(EMOJI, **SETTINGS | {"steps": 3, "sample_k": 4, "tune": "prompt"})(cat)
    assert len(answer.trace) == 3
    for step in answer.trace:
        assert len(set(step.views)) == 3 and set(step.views) <= set(range(8))  # 0.4 of 8
        for rows in (step.answers, step.rewards, step.advantages):
            assert [len(row) for row in rows] == [4] * 3
        for answers, rewards, advantages in zip(step.answers, step.rewards, step.advantages, strict=True):
            assert len(set(answers)) == 4 and set(answers) <= set(range(6))
            mean = sum(rewards) / 4
            assert advantages == pytest.approx([reward - mean for reward in rewards], abs=1e-6)
        assert isinstance(step.loss, float)
    assert len({tuple(step.views) for step in answer.trace}) == 1


@pytest.mark.parametrize(("method", "steps"), [("tpt", 2), ("kd", 2), ("zeroshot", 0)])
def test_methods_that_sample_nothing_have_no_answers_in_their_trace(cat, method, steps):
    trace = Classifier(EMOJI, **SETTINGS | {"method": method, "steps": 2})(cat).trace
    assert len(trace) == steps
    assert all(step.answers is None and step.rewards is None and step.advantages is None for step in trace)


def test_the_index_decides_the_views_and_the_order_of_images_nothing(cat, emoji):
    classifier = Classifier(EMOJI, **SETTINGS)
    first = classifier(cat, index=3)
    classifier(emoji / "blur" / "dog" / "1.png")
    assert torch.equal(classifier(cat, index=3).adapted, first.adapted)
    other = classifier(cat, index=4)
    assert torch.equal(other.zero_shot, first.zero_shot) and not torch.equal(other.adapted, first.adapted)


def test_many_classifiers_live_in_one_process_and_share_models(cat):
    first = Classifier(EMOJI, **SETTINGS | {"tune": "norm"})
    loaded = copied(first.models.student.model)
    expected = first(cat)
    others = [{"tune": "prompt"}, {"tune": "image-encoder"}, {"method": "zeroshot"}]
    for settings in others:
        alone = Classifier(EMOJI, **SETTINGS | settings)
        shared = Classifier.of(alone.config, first.models, EMOJI)
        assert torch.equal(shared(cat).adapted, alone(cat).adapted)
        assert torch.equal(first(cat).adapted, expected.adapted)
    assert same(copied(first.models.student.model), loaded)


def test_a_momentum_buffer_is_carried_from_image_to_image_and_can_be_forgotten(cat):
    momentum = {"momentum": True, "momentum_every": 1, "momentum_decay": 0.5}
    classifier = Classifier(EMOJI, **SETTINGS | momentum)
    answers = [classifier(cat).adapted for _ in range(2)]
    assert not torch.equal(*answers)
    with classifier.episodes:
        pass
    assert torch.equal(classifier(cat).adapted, answers[0])


def test_an_episode_that_is_not_finite_is_told(cat):
    answer = Classifier(EMOJI, **SETTINGS | {"lr": 1e30, "steps": 2})(cat)
    assert not answer.finite and torch.equal(answer.adapted, answer.zero_shot)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sample_k": 7}, "sample_k 7 exceeds the 6 classes of the given ones"),
        ({"sampel_k": 3}, "unknown setting 'sampel_k'; did you mean 'sample_k'?"),
        ({"steps": 0}, "steps: 0 must be at least 1"),
        ({"method": "ppo"}, "method: 'ppo' is not one of "),
        ({"selection": 0.1}, "selection 0.1 of views 8 keeps no view; raise one of them"),
        ({"tune": "prompt", "templates": "imagenet80"}, "templates imagenet80 has no prompt to tune; use tune "),
        ({"data": "photos"}, "data is a setting of the command line, which runs over datasets"),
        ({"workers": 0}, "workers is a setting of the command line, which runs over datasets"),
        ({"save_logits": True}, "save_logits is a setting of the command line, which runs over datasets"),
        ({"student": "ViT-B/61"}, "unknown model 'ViT-B/61'; did you mean 'ViT-B/16'? "),
        ({"bn_prior": 16.0, "tune": "prompt"}, "bn_prior is for tune image-encoder or norm"),
        ({"prompt": "the essence of"}, "demo-student knows a few words only, not all of 'the essence of apple.'"),
        ({"reward": ["py:no_such:f"]}, "reward py:no_such:f cannot be imported (ModuleNotFoundError: "),
    ],
)
def test_a_mistake_speaks_of_settings(settings, message):
    with pytest.raises(UserError) as error:
        Classifier(EMOJI, **SETTINGS | settings)
    assert str(error.value).startswith(message) and " --" not in str(error.value)


@pytest.mark.parametrize("names", ["cat", [1, 2], None, []])
def test_class_names_are_a_list_of_texts(names):
    with pytest.raises(UserError, match=r"^classnames must be a list of texts, not |^a list of class names is empty"):
        Classifier(names, **SETTINGS | {"method": "zeroshot"})


def test_a_file_that_is_no_image_is_told(tmp_path):
    classifier = Classifier(EMOJI, **SETTINGS | {"method": "zeroshot"})
    file = write_picture(tmp_path / "x.jpg")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=r"x\.jpg cannot be read as an image \("):
        classifier(file)
    with pytest.raises(UserError, match=r"^an image tensor must be \(3, H, W\), not \(8, 8\)$"):
        classifier(torch.zeros(8, 8))


def test_an_answer_writes_nothing(cat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(cat, tmp_path / "cat.png")
    Classifier(EMOJI, **SETTINGS)("cat.png")
    assert [file.name for file in tmp_path.iterdir()] == ["cat.png"]


@pytest.mark.parametrize("index", [-1, 1.5, "a"])
def test_an_index_that_is_no_number_of_an_image_is_told(index, build):
    with pytest.raises(UserError, match="an image's index must be a whole number from 0, not"):
        build()(Image.new("RGB", (8, 8)), index)
