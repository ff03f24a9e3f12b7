import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rlcf.adapt.rewards import (
    LEFT_OUT,
    ClipScorer,
    FunctionScorer,
    RewardFunction,
    Seen,
    advantages,
    clip_score,
    ensemble_weights,
    weighted_mean,
)
from rlcf.errors import UserError
from rlcf.run.setup import import_reward
from tests.tools import as_clip, build_clip

SCORES = st.lists(st.lists(st.floats(0, 2.5, width=32), min_size=3, max_size=3), min_size=1, max_size=4).map(
    torch.tensor
)
POSITIVE = st.lists(st.floats(0.1, 100), min_size=1, max_size=6)


def test_clip_score_is_two_and_a_half_times_the_cosine():
    assert clip_score(torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6])).item() == pytest.approx(2.5 * 0.96)


def test_clip_score_of_an_opposite_text_is_zero():
    assert clip_score(torch.tensor([0.6, 0.8]), torch.tensor([-0.6, -0.8])).item() == 0.0


def test_clip_score_weight_scales_it():
    assert clip_score(torch.tensor([0.6, 0.8]), torch.tensor([0.8, 0.6]), weight=10.0).item() == pytest.approx(9.6)


def test_clip_score_of_views_against_their_sampled_answers_broadcasts():
    views, texts = F.normalize(torch.randn(4, 1, 8), dim=-1), F.normalize(torch.randn(4, 3, 8), dim=-1)
    scores = clip_score(views, texts)
    assert scores.shape == (4, 3)
    assert scores[2, 1].item() == pytest.approx(max(0, 2.5 * float(views[2, 0] @ texts[2, 1])), abs=1e-6)


def test_weighted_mean_adds_weight_times_score():
    scores = [torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])]
    torch.testing.assert_close(weighted_mean(scores, [0.75, 0.25]), torch.tensor([[1.5, 2.75]]))


def test_weighted_mean_does_not_normalise():
    torch.testing.assert_close(weighted_mean([torch.ones(2)], [1.01]), torch.tensor([1.01, 1.01]))


def test_weighted_mean_refuses_another_number_of_weights_than_models():
    with pytest.raises(ValueError):
        weighted_mean([torch.ones(2), torch.ones(2)], [1.0])


@given(POSITIVE)
def test_ensemble_weights_sum_to_one(weights):
    assert sum(ensemble_weights(weights)) == pytest.approx(1)


@given(POSITIVE, st.floats(0.01, 100))
def test_ensemble_weights_depend_on_the_ratio_alone(weights, factor):
    assert ensemble_weights([factor * w for w in weights]) == pytest.approx(ensemble_weights(weights))


def test_rounded_ensemble_weights_are_the_published_ones():
    assert ensemble_weights([10, 3, 5], rounded=True) == [0.56, 0.17, 0.28]
    assert ensemble_weights([10, 3, 5]) == pytest.approx([10 / 18, 3 / 18, 5 / 18])


@given(SCORES)
def test_advantages_over_answers_sum_to_zero_for_every_view(scores):
    torch.testing.assert_close(advantages(scores).sum(dim=-1), torch.zeros(len(scores)), atol=1e-5, rtol=0)


@given(SCORES, st.floats(-2, 2), st.sampled_from(["answers", "all"]))
def test_shifting_all_scores_leaves_advantages(scores, shift, baseline):
    torch.testing.assert_close(advantages(scores + shift, baseline), advantages(scores, baseline), atol=1e-5, rtol=1e-5)


@given(SCORES)
def test_advantages_keep_the_ranking_of_the_scores(scores):
    order = scores.argsort(dim=-1)
    assert bool((advantages(scores).gather(-1, order).diff(dim=-1) >= 0).all())


def test_baseline_over_answers_differs_from_baseline_over_all():
    scores = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert advantages(scores, "answers").tolist() == [[-1, 1], [-1, 1]]
    assert advantages(scores, "all").tolist() == [[-3, -1], [1, 3]]


def test_no_baseline_means_the_scores_themselves():
    scores = torch.tensor([[1.0, 3.0]])
    assert advantages(scores, "none").tolist() == [[1.0, 3.0]]


def test_a_single_answer_is_its_own_advantage():
    scores = torch.tensor([[0.7], [0.9]])
    assert torch.equal(advantages(scores, "answers", divide_by_std=True), scores)


def test_a_single_answer_for_each_of_two_views_has_a_baseline_over_all():
    torch.testing.assert_close(advantages(torch.tensor([[0.7], [0.9]]), "all"), torch.tensor([[-0.1], [0.1]]))
    assert advantages(torch.tensor([[0.7]]), "all").item() == pytest.approx(0.7)


def test_division_by_the_unbiased_standard_deviation():
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 8.0]])
    expected = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]])
    torch.testing.assert_close(advantages(scores, divide_by_std=True), expected, atol=2e-5, rtol=0)


def test_division_by_the_standard_deviation_over_all_answers():
    scores = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    result = advantages(scores, "all", divide_by_std=True)
    assert result.std().item() == pytest.approx(1, abs=1e-4) and result.mean().item() == pytest.approx(0, abs=1e-6)


def test_equal_scores_have_zero_advantage_even_when_divided():
    assert advantages(torch.full((2, 3), 0.5), divide_by_std=True).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("settings", [{}, {"baseline": "all"}, {"divide_by_std": True}, {"baseline": "none"}])
def test_the_mean_is_over_the_answers_that_count(settings):
    scores = torch.tensor([[0.9, LEFT_OUT, 0.3], [LEFT_OUT, 0.5, 0.2]])
    found = advantages(scores, **settings)
    assert torch.equal(found == LEFT_OUT, scores == LEFT_OUT)
    kept = advantages(torch.tensor([[0.9, 0.3], [0.5, 0.2]]), **settings)
    torch.testing.assert_close(found[found != LEFT_OUT].view(2, 2), kept)


def test_a_view_whose_answers_are_all_left_out_leaves_the_others_advantages():
    scores = torch.tensor([[LEFT_OUT, LEFT_OUT], [0.5, 0.1]])
    assert advantages(scores)[0].tolist() == [LEFT_OUT, LEFT_OUT]
    torch.testing.assert_close(advantages(scores)[1:], advantages(scores[1:]))


# ---- a sample that reward models have seen ----


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=-1)


def test_a_clip_that_has_seen_a_sample_scores_its_answers_and_has_logits():
    clip, sample, texts = as_clip(build_clip()), unit(4, 16), unit(7, 16)
    answers = torch.randint(0, 7, (4, 3))
    scorer = ClipScorer(clip, sample, texts, weight=10.0)
    for view, row in enumerate(answers.tolist()):
        expected = [10.0 * max(0.0, float(sample[view] @ texts[answer])) for answer in row]
        assert scorer.scores(answers)[view].tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(scorer.logits, clip.logit_scale * sample @ texts.T)


def test_several_samples_are_scored_like_each_alone():
    clip, sample, texts = as_clip(build_clip()), unit(2, 4, 16), unit(7, 16)
    answers = torch.randint(0, 7, (2, 4, 3))
    together = ClipScorer(clip, sample, texts)
    each = [ClipScorer(clip, one, texts) for one in sample]
    torch.testing.assert_close(
        together.scores(answers), torch.stack([one.scores(a) for one, a in zip(each, answers, strict=True)])
    )
    torch.testing.assert_close(together.logits, torch.stack([one.logits for one in each]))


class Fixed:
    """A reward model of fixed scores and logits, which counts how often it is asked for the logits."""

    def __init__(self, scores, logits):
        self.fixed, self._logits, self.asked = scores, logits, 0

    def scores(self, answers):
        return self.fixed

    @property
    def logits(self):
        self.asked += 1
        return self._logits


def test_an_ensemble_weighs_scores_and_logits():
    first = Fixed(torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0]]))
    second = Fixed(torch.tensor([[3.0, 5.0]]), torch.tensor([[8.0]]))
    seen = Seen([first, second], [0.75, 0.25])
    assert seen.scores(None).tolist() == [[1.5, 2.75]] and seen.teacher_logits.tolist() == [[5.0]]


def test_the_teachers_logits_are_computed_once_and_only_when_asked_for():
    model = Fixed(torch.ones(1, 1), torch.ones(1, 1))
    seen = Seen([model], [1.0])
    seen.scores(None)
    assert model.asked == 0
    assert seen.teacher_logits is seen.teacher_logits and model.asked == 1


def test_an_answer_that_one_model_leaves_out_is_left_out_by_the_ensemble():
    some, others = Fixed(torch.tensor([[LEFT_OUT, 2.0]]), None), Fixed(torch.tensor([[3.0, 5.0]]), None)
    assert Seen([some, others], [0.5, 0.5]).scores(None).tolist() == [[LEFT_OUT, 3.5]]


# ---- functions of the user's own ----


def views_of(*greys):
    """A view of one grey each, (V, 3, 2, 2), uint8."""
    return torch.tensor(greys, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)


def brightness_and_length(images, texts):
    return [np.asarray(image).mean() + len(text) / 100 for image, text in zip(images, texts, strict=True)]


@pytest.mark.parametrize("views", [views_of(10, 20), views_of(10, 20).float() / 255])
def test_a_function_scores_each_views_texts(views):
    scores = RewardFunction(brightness_and_length).scores(views, [["a", "dog"], ["cats", ""]])
    torch.testing.assert_close(scores, torch.tensor([[10.01, 10.03], [20.04, 20.0]]))


def test_a_view_is_the_same_picture_for_each_of_its_texts():
    given = []
    RewardFunction(lambda images, texts: given.append((images, texts)) or [0] * len(texts)).scores(
        views_of(1, 2), [["a", "b"], ["c", "d"]]
    )
    ((images, texts),) = given
    assert texts == ["a", "b", "c", "d"] and all(image.mode == "RGB" and image.size == (2, 2) for image in images)
    assert images[0] is images[1] and images[2] is images[3] and images[1] is not images[2]


def test_none_leaves_an_answer_out():
    function = RewardFunction(lambda images, texts: [None if text == "b" else 1 for text in texts])
    assert function.scores(views_of(0), [["a", "b", "c"]]).tolist() == [[1.0, LEFT_OUT, 1.0]]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple, iter])
def test_scores_may_be_any_sequence_of_numbers(kind):
    function = RewardFunction(lambda images, texts: kind([0.5, 1.5]))
    assert function.scores(views_of(0), [["a", "b"]]).tolist() == [[0.5, 1.5]]


def raises(*_):
    raise ValueError("no such word")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, r"^mine failed \(ValueError: no such word\)$"),
        (lambda images, texts: [1.0], r"^mine returned 1 scores for 2 pairs of image and text$"),
        (lambda images, texts: ["good", "bad"], r"^mine failed \(ValueError: could not convert string to float"),
        (lambda images, texts: None, r"^mine failed \(TypeError: "),
        (lambda texts: [1.0, 1.0], r"^mine failed \(TypeError: "),
    ],
)
def test_what_goes_wrong_in_a_function_is_told_with_its_name(function, message):
    with pytest.raises(UserError, match=message):
        RewardFunction(function, "mine").scores(views_of(0), [["a", "b"]])


def test_an_error_for_the_user_passes_a_function_as_it_is():
    def function(images, texts):
        raise UserError("load the model first")

    with pytest.raises(UserError, match=r"^load the model first$"):
        RewardFunction(function).scores(views_of(0), [["a"]])


def test_answers_of_a_fixed_list_are_scored_by_their_texts():
    function = RewardFunction(brightness_and_length)
    scorer = FunctionScorer(function, views_of(10, 20), ["a", "dog", "cats"])
    scores = scorer.scores(torch.tensor([[2, 0], [1, 1]]))
    torch.testing.assert_close(scores, torch.tensor([[10.04, 10.01], [20.03, 20.03]]))


def test_answers_of_several_samples_are_scored_by_each_ones_views():
    function, views = RewardFunction(brightness_and_length), views_of(10, 20, 30, 40).view(2, 2, 3, 2, 2)
    scores = FunctionScorer(function, views, ["a", "dog"]).scores(torch.tensor([[[0], [1]], [[1], [0]]]))
    torch.testing.assert_close(scores, torch.tensor([[[10.01], [20.03]], [[30.03], [40.01]]]))


def test_answers_without_a_list_are_texts():
    scorer = FunctionScorer(RewardFunction(brightness_and_length), views_of(10))
    torch.testing.assert_close(scorer.scores([["dog", "a"]]), torch.tensor([[10.03, 10.01]]))


def test_a_function_has_no_logits_to_distil():
    with pytest.raises(UserError, match=r"^mine gives scores, not logits to distil; give a CLIP as --reward$"):
        _ = FunctionScorer(RewardFunction(brightness_and_length, "mine"), views_of(0)).logits


# ---- functions by their import path ----


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the working folder; returns its name. Python forgets it after the test."""
    monkeypatch.chdir(tmp_path)
    written = []

    def write(text, name="tests_own_reward"):
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        written.append(name)
        return name

    yield write
    for name in written:
        for part in (name, name.partition(".")[0]):
            sys.modules.pop(part, None)


@pytest.mark.parametrize("name", ["tests_own_reward", "tests_own.reward"])
def test_a_function_is_imported_from_the_working_folder(module, name):
    function = import_reward(f"py:{module('def score(images, texts): return [len(t) for t in texts]', name)}:score")
    assert function.name == f"--reward py:{name}:score"
    assert function.scores(views_of(0), [["a", "dog"]]).tolist() == [[1.0, 3.0]]


def test_any_callable_of_a_module_is_a_reward(module):
    name = module(
        "class Longest:\n    def __call__(self, images, texts): return [len(t) for t in texts]\nscore = Longest()"
    )
    assert import_reward(f"py:{name}:score").scores(views_of(0), [["dog"]]).tolist() == [[3.0]]


@pytest.mark.parametrize("name", ["py:", "py:module", "py::score", "py:module:"])
def test_a_name_without_module_and_function_is_told(name):
    with pytest.raises(UserError) as error:
        import_reward(name)
    assert str(error.value) == f"--reward {name} names no function; write py:package.module:function"


@pytest.mark.parametrize(
    ("text", "function", "reason"),
    [
        ("", "score", "cannot be imported (AttributeError: module 'tests_own_reward' has no attribute 'score')"),
        (
            "import no_such_package",
            "score",
            "cannot be imported (ModuleNotFoundError: No module named 'no_such_package')",
        ),
        ("1 / 0", "score", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("score = 3", "score", "is no function; its type is int"),
    ],
)
def test_a_function_that_cannot_be_had_is_told(module, text, function, reason):
    name = f"py:{module(text)}:{function}"
    with pytest.raises(UserError) as error:
        import_reward(name)
    assert str(error.value) == f"--reward {name} {reason}"


def test_a_module_that_is_not_there_is_told():
    with pytest.raises(UserError, match=r"^--reward py:no.such:f cannot be imported \(ModuleNotFoundError: "):
        import_reward("py:no.such:f")
