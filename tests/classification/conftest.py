"""Emoji that the shipped models know, and runs on them."""

import shutil

import pytest

from classification import Classifier
from classification.config import ClassificationConfig
from classification.main import main
from demo.world import write_classification
from rlcf.run.config import make_config
from rlcf.run.setup import Models
from tests.tools import Results, copied, mistake

EMOJI = ("apple", "car", "cat", "dog", "key", "owl")
"""The classes, in the order of their folders."""
VIEWS = {"views": 8, "selection": 0.4, "steps": 1, "lr": 1e-3}
"""Settings of a tiny run: of eight views three are kept."""
TINY_RUN = [word for name, value in VIEWS.items() for word in (f"--{name}", str(value))]
TINY_RUN += ["--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="session")
def emoji(tmp_path_factory):
    """A folder of image folders, "clean" and "blur": six classes, two pictures each."""
    root = tmp_path_factory.mktemp("emoji")
    for style in ("clean", "blur"):
        write_classification(root / style, style, per_class=2, seed=7)
        for folder in (root / style).iterdir():
            if folder.name not in EMOJI:
                shutil.rmtree(folder)
    return root


@pytest.fixture
def classify(emoji, tmp_path):
    """Runs the entry script's main on blurred emoji with the shipped models; flags win over that."""

    def run(*flags, output="run"):
        models = ["--student", "demo-student", "--reward", "demo-reward"]
        data = ["--data", str(emoji), "--datasets", "folder:blur", "--output", str(tmp_path / output)]
        main([*data, *models, *TINY_RUN, *map(str, flags)])
        return Results(tmp_path / output)

    return run


@pytest.fixture
def told(classify, capsys):
    """The one line that a mistake ends with."""
    return lambda *flags: mistake(lambda: classify(*flags), capsys)


NAMES = ["dog", "sea lion", "pizza", "sports car", "owl"]
"""The classes of `build`'s classifiers."""


@pytest.fixture
def build(clip):
    """A classifier of a tiny student, "vit" or "resnet", and a tiny ResNet as its reward model."""

    def make(tune="prompt", kind="vit", method="rlcf", names=NAMES, student=None, **settings):
        settings = {"lr": 1e-2, "steps": 2, "selection": 0.4, "views": 10, **settings}
        config = make_config(ClassificationConfig, {"method": method, "tune": tune, **settings})
        rewards = [clip("resnet")] if config.asks_rewards else []
        return Classifier.of(config, Models(student or clip(kind), rewards), names)

    return make


def weights(policy):
    """Everything that a policy's model has, and its context, copied."""
    context = {"context": policy.context.detach().clone()} if hasattr(policy, "context") else {}
    return copied(policy.clip.model) | context
