"""The Python face: the command line's numbers, and captioners that never see each other."""

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from caption import Captioner
from rlcf.errors import UserError
from tests.tools import copied, same

SMALL = {"sample_k": 3, "steps": 2, "lr": 1e-2, "beams": 2, "max_new_tokens": 6, "device": "cpu"}


@pytest.fixture
def make(checkpoint, lm_folder):
    def captioner(**settings):
        models = {"checkpoint": str(checkpoint), "language_model": str(lm_folder("opt")), "student": "demo-student"}
        return Captioner(**{**models, "reward": ["demo-reward"], **SMALL, **settings})

    return captioner


@pytest.fixture
def image(data):
    return data / "clean" / "0.png"


@pytest.mark.parametrize("sampling", ["beam", "nucleus"])
def test_a_captioner_gives_the_command_lines_numbers(sampling, make, caption, data):
    captioner = make(sampling=sampling, seed=3)
    records = caption("--lr", "1e-2", "--sampling", sampling, "--seed", "3", "--limit", "3").records()
    for record in records:
        answer = captioner(data / record["id"], record["index"])
        assert (answer.zero_shot, answer.adapted) == (record["zero_shot"], record["adapted"])
        assert (answer.zero_shot_reward, answer.adapted_reward) == (
            record["zero_shot_reward"],
            record["adapted_reward"],
        )
        assert answer.finite and len(answer.trace) == len(record["steps"]) == 2
        for step, recorded in zip(answer.trace, record["steps"], strict=True):
            assert step.answers == [recorded["candidates"]] and step.rewards == [recorded["rewards"]]
            assert step.advantages == [recorded["advantages"]] and step.loss == recorded["loss"]


def test_a_picture_a_file_and_a_tensor_have_one_answer(make, image):
    captioner = make()
    with Image.open(image) as picture:
        rgb = picture.convert("RGB")
    pixels = pil_to_tensor(rgb)
    expected = captioner(rgb)
    assert captioner(str(image)) == captioner(image) == captioner(pixels) == captioner(pixels / 255) == expected


def test_zeroshot_needs_no_reward_model(make, image):
    answer = make(method="zeroshot", reward=["no-such-model"])(image)
    assert answer.zero_shot == answer.adapted == make()(image).zero_shot
    assert answer.trace == [] and answer.adapted_reward is None


def test_two_captioners_in_one_process_never_see_each_other(make, data):
    images = sorted((data / "clean").iterdir())[:3]
    settings = {"sampling": "nucleus"}, {"momentum": True, "momentum_every": 1, "momentum_decay": 0.1}
    alone = []
    for own in settings:
        captioner = make(**own)
        alone.append([captioner(image) for image in images])
    first, second = (make(**own) for own in settings)
    before = copied(first.policy.mappers)
    assert [(first(image), second(image)) for image in images] == list(zip(*alone, strict=True))
    assert same(copied(first.policy.mappers), before) and same(copied(second.policy.mappers), before)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"checkpoint": ""}, "no captioner; give checkpoint a training run's folder"),
        ({"lerning_rate": 1.0}, "unknown setting 'lerning_rate'"),
        ({"stepz": 1}, "unknown setting 'stepz'; did you mean 'steps'"),
        ({"steps": 0}, "steps: 0 must be at least 1"),
        ({"method": "none"}, "method: 'none' is not one of zeroshot, rerank, rlcf"),
        ({"evaluate": True}, "evaluate is a setting of the command line"),
        ({"momentum": True, "images_at_once": 2}, "^momentum carries weights .*; use images_at_once 1"),
        ({"student": "no-such-clip"}, "unknown model 'no-such-clip'"),
    ],
)
def test_a_mistake_speaks_of_the_setting(settings, told, make):
    with pytest.raises(UserError, match=told):
        make(**settings)


def test_what_is_no_image_is_told(make, tmp_path):
    captioner = make()
    with pytest.raises(UserError, match="an image tensor must be"):
        captioner(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match=r"nothing.png cannot be read as an image"):
        captioner(tmp_path / "nothing.png")
