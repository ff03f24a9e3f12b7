"""Where tensors lie on a GPU, checked without one: torch's fake tensors know their device and shape, and no values.

A tensor left on the CPU, or a value that is read off the device within an episode's steps (`.item()`, a condition),
fails these tests. Backward passes do not run on fake tensors: they are left out. So are copies of layers, one a sample,
whose fake memory torch's copy looks for.
"""

from contextlib import contextmanager, nullcontext
from functools import cache
from types import SimpleNamespace

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from transformers import OPTConfig, OPTForCausalLM

from benchmarks.common import TINY
from caption.clip_model import MapperPolicy
from caption.config import CaptionConfig
from caption.language_model import LanguageModel
from caption.mapper import TransformerMapper
from caption.objectives import OBJECTIVES, Sampled
from caption.reward import Rewards as CaptionRewards
from classification.classifier import Classifier
from classification.config import ClassificationConfig
from classification.methods import METHODS
from retrieval.config import RetrievalConfig
from retrieval.retriever import Retriever, encode_views, make_rewards
from retrieval.reward import Query
from rlcf.adapt import episode, settled
from rlcf.clip.backbone import Backbone
from rlcf.run.setup import Models

CUDA = torch.device("cuda", 0)
NAMES = ["cat", "dog", "owl", "fish", "tree"]
RESNET = TINY | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}}


FAKE = FakeTensorMode(allow_non_fake_inputs=True)


class FakeGPU(TorchFunctionMode):
    """What is made on, or moved to, a GPU is fake; tensors on the CPU keep their values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with FAKE if any(map(self.is_cuda, (*args, *kwargs.values()))) else nullcontext():
            return func(*args, **kwargs)

    def is_cuda(self, value):
        if isinstance(value, torch.Tensor):
            return type(value) is FakeTensor and value.fake_device.type == "cuda"
        if isinstance(value, list | tuple):
            return any(map(self.is_cuda, value))
        return isinstance(value, str | torch.device) and str(value).startswith("cuda")


@contextmanager
def fake_gpu(monkeypatch):
    """A GPU of fake tensors. Backward passes do nothing; finiteness is taken for granted, and what is asked is told."""
    asked = []
    monkeypatch.setattr(torch.Tensor, "backward", lambda *_, **__: None)
    monkeypatch.setattr("rlcf.clip.class_features.free_memory", lambda device: 10**9)
    monkeypatch.setattr(episode, "all_finite", lambda tensors: asked.append(list(tensors)) or True)
    with FakeGPU():
        yield asked


@cache
def fake_clip(use, kind="vit"):
    """A CLIP of fake tensors, one for each use."""
    with FAKE, torch.device(CUDA):
        model = open_clip.CLIP(**(TINY if kind == "vit" else RESNET)).eval().requires_grad_(False)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    return Backbone(use, model, tokenizer, vars(PreprocessCfg(size=32)), CUDA, "fp32")


def on_cuda(*tensors):
    return all(tensor.device == CUDA for tensor in tensors)


SETTINGS = {
    "prompt": {"tune": "prompt", "lr": 7e-3},
    "image-encoder": {"tune": "image-encoder", "lr": 1e-5},
    "norm": {"tune": "norm", "lr": 1e-3},
}
BEYOND = {"candidates": "both", "learn_from_centre": True, "kl_weight": 0.1, "answer": "product", "clip_ratio": 0.2}
STEPPED = [name for name, method in METHODS.items() if method.adapts]
RUNS = [
    *((name, "prompt", {}) for name in STEPPED),
    *((name, "image-encoder", {}) for name in STEPPED if name != "ctpt"),
    ("rlcf", "norm", {}),
    ("rlcf", "prompt", {"images_at_once": 2}),
    ("rlcf", "prompt", {"class_chunk": 2}),
    *(("rlcf", tune, BEYOND) for tune in SETTINGS),
]
OF_RESNETS = [("rlcf", "norm", {}), ("rlcf", "prompt", {"images_at_once": 2}), ("rlcf", "image-encoder", BEYOND)]


def classifier_of(method, tune, settings, kind="vit"):
    config = ClassificationConfig(
        method=method, views=8, selection=0.5, sample_k=2, **{"steps": 2, **SETTINGS[tune], **settings}
    )
    rewards = [fake_clip("reward"), fake_clip("second reward")] if config.asks_rewards else []
    return Classifier.of(config, Models(fake_clip("student", kind), rewards), NAMES)


@pytest.mark.parametrize(
    ("kind", "method", "tune", "settings"),
    [*(("vit", *run) for run in RUNS), *(("resnet", *run) for run in OF_RESNETS)],
)
def test_an_episode_of_classification_stays_on_the_gpu(monkeypatch, kind, method, tune, settings):
    with fake_gpu(monkeypatch) as asked:
        classifier = classifier_of(method, tune, settings, kind)
        views = torch.zeros(classifier.config.images_at_once, 8, 3, 32, 32, dtype=torch.uint8)
        walked = classifier._walk(views, several=len(views) > 1)
        assert on_cuda(walked.before, walked.after) and len(walked.steps) == 2
        assert all(on_cuda(step.loss) for step in walked.steps)
        assert len(asked) == 1  # the GPU is waited for once an episode
        assert on_cuda(*asked[0])


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_an_episode_that_may_end_early_waits_for_the_gpu_once_a_step(monkeypatch, tune):
    reads = []
    monkeypatch.setattr(settled, "read", lambda flags: reads.append(flags) or [False] * len(flags))
    with fake_gpu(monkeypatch) as asked:
        classifier = classifier_of("rlcf", tune, {"steps": 4, "stop_when_settled": 0.1})
        walked = classifier._walk(torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8), several=False)
        assert len(walked.steps) == 4 and len(asked) == 1
        assert len(reads) == 2 and on_cuda(*reads)  # after the second step and the third


@pytest.mark.parametrize(
    "name", [name for name, method in METHODS.items() if not method.adapts and not method.remembers]
)
def test_a_method_without_gradients_stays_on_the_gpu(monkeypatch, name):
    if name in ("zero", "mta"):
        pytest.skip("votes are counted, and convergence is looked at, on the CPU")
    with fake_gpu(monkeypatch):
        classifier = classifier_of(name, "prompt", {})
        walked = classifier._walk(torch.zeros(1, 8, 3, 32, 32, dtype=torch.uint8), several=False)
        assert on_cuda(walked.before, walked.after)


@pytest.mark.parametrize("settings", [{}, {"candidates": "both", "kl_weight": 0.1, "answer": "product"}])
@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_a_query_of_retrieval_stays_on_the_gpu(monkeypatch, direction, settings):
    with fake_gpu(monkeypatch) as asked:
        config = RetrievalConfig(method="rlcf", direction=direction, steps=2, sample_k=2, t2i_sample_k=2, **settings)
        student, reward = fake_clip("student"), fake_clip("reward")
        gallery = {clip: torch.zeros(6, 32, device=CUDA) for clip in ("student", "reward")}
        models = Models(student, [reward])
        rewards = make_rewards(config, models, {0: gallery["reward"]})
        retriever = Retriever.of(config, models, gallery["student"], rewards, range(6))
        view = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        if direction == "i2t":
            query = Query(view, {0: encode_views(reward, view)[0]})
        else:
            query = Query("a cat", {0: reward.encode_text(["a cat"])[0]})
        answered = []
        monkeypatch.setattr(torch.Tensor, "cpu", lambda self: answered.append(self) or self)
        monkeypatch.setattr("retrieval.retriever.traced", lambda *_: [])
        monkeypatch.setattr("retrieval.retriever.all_finite", lambda tensors: on_cuda(*tensors))  # before any step
        retriever.adapt([(0, query)])
        assert len(answered) == 2 and on_cuda(*answered) and len(asked) == 1


def test_a_captioner_stays_on_the_gpu(monkeypatch):
    with fake_gpu(monkeypatch):
        config = CaptionConfig(method="rlcf", sample_k=3)
        student, reward = fake_clip("student"), fake_clip("reward")
        with torch.device(CUDA):
            lm = (
                OPTForCausalLM(
                    OPTConfig(
                        vocab_size=50,
                        hidden_size=16,
                        num_hidden_layers=1,
                        ffn_dim=16,
                        num_attention_heads=2,
                        word_embed_proj_dim=16,
                    )
                )
                .eval()
                .requires_grad_(False)
            )
            mapper = TransformerMapper(32, 16, prefix_length=3, clip_length=2, layers=1, heads=2)
        model = LanguageModel(lm, SimpleNamespace(pad_token_id=1), 2, (2,), CUDA)
        policy = MapperPolicy(student, mapper, model)
        features = policy.encode(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
        texts = [["a cat", "a dog", "an owl"]]
        monkeypatch.setattr(LanguageModel, "tokenize", lambda self, texts: self.pad_rows([[2, 5, 6], [2, 7], [2, 8]]))
        with policy:
            prefix = policy.prefix(features)
            now, tokens = policy.log_likelihood(prefix, texts)
            seen = CaptionRewards([reward], [1.0]).see(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
            repeated = torch.zeros(1, 3, dtype=torch.bool, device=CUDA)
            step = OBJECTIVES["rlcf"](config, Sampled(texts, now, tokens, repeated), seen)
        assert on_cuda(features, prefix, now, tokens, step.loss, step.rewards, policy.answer(features))
