import pytest
import torch
import torch.nn.functional as F

from rlcf.clip import class_features
from rlcf.clip.class_features import ClassFeatures, default_chunk
from rlcf.clip.prompted_text import PromptedText, prompt_classes
from rlcf.clip.text_tower import TextTower
from tests.tools import CPU, SIGLIP_TEXT, as_clip, build_clip, word_tokenizer

NAMES = ["dog", "sea lion", "very old sailing ship", "cat", "bird"]
EACH = [(5, True)]
"""One pass of all classes, with a graph."""


@pytest.fixture(scope="module", params=["packed", "plain"])
def prompts(request):
    """A causal tower's prompts, and SigLIP's."""
    further = {"text": SIGLIP_TEXT} if request.param == "plain" else {}
    tokenizer = word_tokenizer() if request.param == "plain" else word_tokenizer(end=99, padding=0)
    prompts = prompt_classes(TextTower(build_clip(**further)), tokenizer, NAMES, 3, "end")
    assert prompts.packed == (request.param == "packed")
    return prompts


@pytest.fixture
def classes(prompts):
    return lambda chunk=5: ClassFeatures(as_clip(None), prompts, chunk)


def gradient(classes, context, direction, start=None):
    leaf = context.clone().requires_grad_(True)
    return torch.autograd.grad((classes(leaf, start) * direction).sum(), leaf)[0]


@pytest.mark.parametrize("start", [None, 0, 3])
@pytest.mark.parametrize("chunk", [1, 2, 5, 99])
@pytest.mark.parametrize("shape", [(3, 64), (2, 3, 64)])
def test_features_and_gradients_in_chunks_are_those_of_one_pass(classes, prompts, shape, chunk, start):
    context = torch.randn(shape)
    leaf = context.clone().requires_grad_(True)
    expected = F.normalize(prompts(leaf), dim=-1)
    direction = torch.randn_like(expected)
    (slope,) = torch.autograd.grad((expected * direction).sum(), leaf)
    ours = classes(chunk)
    torch.testing.assert_close(ours(context, start), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.evaluate(context), expected, atol=1e-5, rtol=1e-5)
    if start is not None:
        torch.testing.assert_close(ours.at_start(context, start), expected, atol=1e-5, rtol=1e-5)
    for _ in range(2):
        torch.testing.assert_close(gradient(ours, context, direction, start), slope, atol=1e-4, rtol=1e-4)


@pytest.fixture
def passes(monkeypatch):
    """The number of classes of each pass of the text tower, and True for a pass with a graph."""
    seen = []
    forward = PromptedText.__call__

    def watched(prompts, context):
        seen.append((len(prompts), torch.is_grad_enabled()))
        return forward(prompts, context)

    monkeypatch.setattr(PromptedText, "__call__", watched)
    return seen


def test_the_graph_of_a_starting_context_is_made_once(classes, passes):
    ours, start, direction = classes(), torch.randn(3, 64), torch.randn(len(NAMES), 16)
    first = ours.at_start(start, 0)
    slopes = [gradient(ours, start, direction, 0) for _ in range(3)]
    assert torch.equal(ours.at_start(start, 0), first) and passes == [(5, False), (5, True)]
    assert all(torch.equal(slope, slopes[0]) for slope in slopes)


def test_a_context_without_a_number_is_computed_each_time(classes, passes):
    ours, start, direction = classes(), torch.randn(3, 64), torch.randn(len(NAMES), 16)
    ours.at_start(start, 0)
    for _ in range(2):
        gradient(ours, start, direction)
    assert passes[1:] == EACH * 2
    ours.evaluate(start)
    assert passes[3:] == [(5, False)]


def test_the_number_tells_starts_apart_and_not_their_values(classes, passes):
    ours, context = classes(), torch.randn(3, 64)
    first = ours.at_start(context, 0)
    assert torch.equal(ours.at_start(context, 1), first) and len(passes) == 2
    assert torch.equal(ours.at_start(context + 1.0, 0), first) and len(passes) == 2


def test_the_loaded_start_and_the_latest_are_remembered(classes, passes):
    ours, contexts = classes(), torch.randn(3, 3, 64)
    for start in (0, 1, 0, 1, 0):
        ours.at_start(contexts[start], start)
    assert len(passes) == 2
    ours.at_start(contexts[2], 2)
    ours.at_start(contexts[0], 0)
    assert len(passes) == 3
    ours.at_start(contexts[1], 1)  # forgotten when the next one came
    assert len(passes) == 4


def test_a_start_stays_as_it_was_when_its_context_moves_on(classes):
    ours, context, direction = classes(), torch.randn(3, 64), torch.randn(len(NAMES), 16)
    first, slope = ours.at_start(context, 0).clone(), gradient(ours, context, direction, 0)
    context += 1.0  # a tuned parameter is changed in place
    assert torch.equal(ours.at_start(context, 0), first)
    assert torch.equal(gradient(ours, context, direction, 0), slope)


def test_no_more_than_a_chunk_of_classes_has_a_graph_at_a_time(classes, passes):
    gradient(classes(2), torch.randn(3, 64), torch.randn(len(NAMES), 16))
    assert passes == [(2, False), (2, False), (1, False), (2, True), (2, True), (1, True)]


@pytest.mark.parametrize("chunk", [2, 5])
def test_evaluated_features_have_no_graph_and_others_have_one(classes, chunk):
    context = torch.randn(3, 64, requires_grad=True)
    ours = classes(chunk)
    assert not ours.evaluate(context).requires_grad and not ours.at_start(context, 0).requires_grad
    assert ours(context).requires_grad and ours(context, 0).requires_grad


def test_more_free_memory_makes_larger_chunks_and_more_samples_smaller_ones(prompts, monkeypatch):
    def chunk(free, samples=1):
        monkeypatch.setattr(class_features, "free_memory", lambda device: free)
        return default_chunk(prompts, samples, CPU)

    assert chunk(2**33) == pytest.approx(2 * chunk(2**32), rel=0.01) and chunk(0) == 1
    assert chunk(2**33, samples=4) == pytest.approx(chunk(2**31), rel=0.01)
