import pytest
import torch
import torch.nn.functional as F

from rlcf.clip import class_features
from rlcf.clip.backbone import Backbone
from rlcf.clip.class_features import ClassFeatures, default_chunk
from rlcf.clip.prompted_text import PromptedText, TextTower, prompt_classes

from .conftest import SIGLIP_TEXT

CPU = torch.device("cpu")
NAMES = ["dog", "sea lion", "very old sailing ship", "cat", "bird"]
PREPROCESS = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.fixture(scope="module", params=["packed", "plain"])
def prompts(request, build, make_tokenizer):
    """A causal tower's prompts, and SigLIP's."""
    further = {"text": SIGLIP_TEXT} if request.param == "plain" else {}
    tokenizer = make_tokenizer() if request.param == "plain" else make_tokenizer(end=99, padding=0)
    prompts = prompt_classes(TextTower(build(**further)), tokenizer, NAMES, 3, "end", CPU)
    assert prompts.packed == (request.param == "packed")
    return prompts


@pytest.fixture
def classes(prompts):
    def make(chunk=5):
        return ClassFeatures(Backbone("tiny", None, None, PREPROCESS, CPU), prompts, chunk)

    return make


def gradient(classes, context, direction):
    leaf = context.clone().requires_grad_(True)
    return torch.autograd.grad((classes(leaf) * direction).sum(), leaf)[0]


@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 5, 99])
@pytest.mark.parametrize("shape", [(3, 64), (2, 3, 64)])
def test_features_and_gradients_in_chunks_are_those_of_one_pass(classes, prompts, shape, chunk, at_start):
    context = torch.randn(shape)
    if at_start and len(shape) == 3:
        context = context[:1].repeat(2, 1, 1)
    leaf = context.clone().requires_grad_(True)
    expected = F.normalize(prompts(leaf), dim=-1)
    direction = torch.randn_like(expected)
    (slope,) = torch.autograd.grad((expected * direction).sum(), leaf)
    ours = classes(chunk)
    if at_start:
        ours.at_start(context)
    torch.testing.assert_close(ours(context), expected, atol=1e-5, rtol=1e-5)
    for _ in range(2):
        torch.testing.assert_close(gradient(ours, context, direction), slope, atol=1e-4, rtol=1e-4)


@pytest.fixture
def passes(monkeypatch):
    """How many classes the text tower computes at a time, and whether with a graph."""
    seen = []
    forward = PromptedText.__call__

    def watched(prompts, context):
        seen.append((len(prompts), torch.is_grad_enabled()))
        return forward(prompts, context)

    monkeypatch.setattr(PromptedText, "__call__", watched)
    return seen


def test_the_starting_contexts_graph_is_made_once(classes, passes):
    ours, start, direction = classes(), torch.randn(3, 64), torch.randn(len(NAMES), 16)
    first = ours.at_start(start)
    slopes = [gradient(ours, start, direction) for _ in range(3)]
    assert torch.equal(ours.at_start(start), first) and passes == [(5, False), (5, True)]
    assert all(torch.equal(slope, slopes[0]) for slope in slopes)
    gradient(ours, start + 0.1, direction)
    assert passes[2:] == [(5, True)]


def test_two_starting_contexts_are_remembered(classes, passes):
    ours, loaded, moved = classes(), torch.randn(3, 64), torch.randn(3, 64)
    for context in (loaded, moved, loaded, moved):
        ours.at_start(context)
    assert len(passes) == 2
    ours.at_start(loaded)
    ours.at_start(torch.randn(3, 64))  # the one that was asked for last is kept
    ours.at_start(loaded)
    assert len(passes) == 3


def test_no_more_than_a_chunk_of_classes_has_a_graph_at_a_time(classes, passes):
    gradient(classes(2), torch.randn(3, 64), torch.randn(len(NAMES), 16))
    assert passes == [(2, False), (2, False), (1, False), (2, True), (2, True), (1, True)]


def test_without_gradients_there_is_no_graph(classes):
    context = torch.randn(3, 64, requires_grad=True)
    with torch.no_grad():
        assert not classes()(context).requires_grad and not classes(2)(context).requires_grad
    assert not classes().at_start(context).requires_grad


def test_more_free_memory_makes_larger_chunks_and_more_samples_smaller_ones(prompts, monkeypatch):
    def chunk(free, samples=1):
        monkeypatch.setattr(class_features, "free_memory", lambda device: free)
        return default_chunk(prompts, samples, CPU)

    assert chunk(2**33) == pytest.approx(2 * chunk(2**32), rel=0.01) and chunk(0) == 1
    assert chunk(2**33, samples=4) == pytest.approx(chunk(2**31), rel=0.01)
