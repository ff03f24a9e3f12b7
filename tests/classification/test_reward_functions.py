"""A function of the user's own as the reward: --reward py:module:function."""

import sys

import pytest
import torch

from classification import Classifier
from rlcf.errors import UserError

from .conftest import EMOJI, VIEWS

MODULE = """
asked = []

def likes_owls(images, texts):
    asked.append((images, texts))
    return [1.0 if "owl" in text else 0.0 for text in texts]

def nothing(images, texts):
    return [None] * len(texts)

def only_two(images, texts):
    return [1.0, 2.0]

def broken(images, texts):
    raise KeyError("owl")

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The module tests_own_reward in the working folder. Python forgets it after the test."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests_own_reward.py").write_text(MODULE)
    sys.modules.pop("tests_own_reward", None)
    yield "py:tests_own_reward"
    sys.modules.pop("tests_own_reward", None)


@pytest.mark.parametrize("tune", ["prompt", "image-encoder", "norm"])
def test_a_function_rewards_what_it_likes(classify, own, tune):
    flags = ["--sample-k", 6, "--limit", 3, "--lr", "1e-3", "--tune", tune, "--batchnorm", "frozen", "--save-logits"]
    results = classify(*flags, "--reward", f"{own}:likes_owls")
    owl = EMOJI.index("owl")
    logits = results.logits()
    before, after = (logits[name].softmax(dim=-1)[:, owl] for name in ("zero_shot", "adapted"))
    assert bool((after > before).all())
    for record in results.records():
        for step in record["steps"]:
            expected = [[float(answer == owl) for answer in row] for row in step["answers"]]
            assert step["rewards"] == expected


def test_a_function_sees_the_kept_views_and_the_texts_of_the_sampled_classes(classify, own):
    (record,) = classify("--limit", 1, "--reward", f"{own}:likes_owls").records()
    ((images, texts),) = sys.modules["tests_own_reward"].asked
    (step,) = record["steps"]
    assert texts == [f"a photo of a {EMOJI[answer]}." for row in step["answers"] for answer in row]
    assert len(images) == 3 * 3 and len({id(image) for image in images}) == len(step["views"]) == 3
    assert {(image.size, image.mode) for image in images} == {((64, 64), "RGB")}


def test_a_function_stands_in_an_ensemble_with_a_clip(classify, own):
    flags = ["--limit", 1, "--sample-k", 6]
    clip, function, both = (
        classify(*flags, "--reward", *reward, output=str(number)).records()[0]["steps"][0]
        for number, reward in enumerate(
            [["demo-reward"], [f"{own}:likes_owls"], ["demo-reward", f"{own}:likes_owls", "--reward-weights", 3, 1]]
        )
    )
    assert clip["answers"] == function["answers"] == both["answers"]
    expected = 0.75 * torch.tensor(clip["rewards"]) + 0.25 * torch.tensor(function["rewards"])
    torch.testing.assert_close(torch.tensor(both["rewards"]), expected, atol=1e-6, rtol=0)


def test_a_function_that_leaves_everything_out_teaches_nothing(classify, own):
    # Of the prompt: a ResNet's BatchNorm statistics move with every pass.
    flags = ["--tune", "prompt", "--weight-decay", 0, "--limit", 2, "--save-logits"]
    results = classify(*flags, "--reward", f"{own}:nothing")
    logits = results.logits()
    torch.testing.assert_close(logits["adapted"], logits["zero_shot"], atol=1e-4, rtol=0)
    for record in results.records():
        (step,) = record["steps"]
        assert step["loss"] == 0.0 and step["rewards"] == step["advantages"] == [[None] * 3] * 3


def test_python_takes_the_same_names(classify, own, emoji):
    flags = ["--limit", 1, "--tune", "prompt", "--save-logits", "--reward", f"{own}:likes_owls"]
    results = classify(*flags)
    (record,) = results.records()
    settings = VIEWS | {"student": "demo-student", "reward": [f"{own}:likes_owls"], "tune": "prompt", "device": "cpu"}
    answer = Classifier(EMOJI, **settings)(emoji / "blur" / record["id"], index=record["index"])
    torch.testing.assert_close(answer.adapted, results.logits()["adapted"][0].softmax(dim=-1), atol=1e-6, rtol=0)
    assert answer.trace[0].rewards == record["steps"][0]["rewards"]


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        ("py:no_such_module:f", "--reward py:no_such_module:f cannot be imported (ModuleNotFoundError: No module "),
        ("OWN:hates_owls", "--reward OWN:hates_owls cannot be imported (AttributeError: module 'tests_own_reward' "),
        ("OWN", "--reward OWN names no function; write py:package.module:function"),
        ("OWN:number", "--reward OWN:number is no function; its type is int"),
        ("OWN:only_two", "--reward OWN:only_two returned 2 scores for 9 pairs of image and text"),
        ("OWN:broken", "--reward OWN:broken failed (KeyError: 'owl')"),
    ],
)
def test_a_mistake_with_a_function_is_told(told, own, reward, message):
    assert told("--reward", reward.replace("OWN", own)).startswith(message.replace("OWN", own))


@pytest.mark.parametrize("flags", [["--method", "kd"], ["--method", "ensemble"], ["--candidates", "both"]])
def test_a_method_that_needs_logits_refuses_a_function(told, own, flags):
    message = told("--reward", f"{own}:likes_owls", *flags)
    assert message.startswith(f"--reward {own}:likes_owls gives scores, not logits") and "give a CLIP" in message


def test_python_tells_a_functions_mistake_as_a_setting(own, emoji):
    settings = VIEWS | {"student": "demo-student", "reward": [f"{own}:broken"], "device": "cpu"}
    with pytest.raises(UserError, match=r"^reward py:tests_own_reward:broken failed \(KeyError: 'owl'\)$"):
        Classifier(EMOJI, **settings)(emoji / "blur" / "cat" / "0.png")
