"""The presets hold the published settings, and the launchers start them."""

import os
import subprocess
import sys

import pytest

from classification.config import ClassificationConfig
from demo.world import write_classification
from rlcf.run.config import parse_config
from tests.tools import ROOT

CONFIGS = ROOT / "classification" / "configs"
PUBLISHED = {  # method, tuned, steps, learning rate, weight decay
    "tpt-prompt": ("tpt", "prompt", 1, 5e-3, 1e-2),
    "tpt-tune": ("tpt", "image-encoder", 3, 1e-5, 5e-4),
    "rlcf-prompt": ("rlcf", "prompt", 3, 7e-3, 5e-4),
    "rlcf-prompt-fine": ("rlcf", "prompt", 5, 7e-3, 5e-4),
    "rlcf-tune-single": ("rlcf", "image-encoder", 3, 1e-5, 5e-4),
    "rlcf-tune-ensemble": ("rlcf", "image-encoder", 3, 1e-5, 5e-4),
    "rlcf-tune-ensemble-momentum": ("rlcf", "image-encoder", 3, 1e-5, 5e-4),
    "kd-tune-kd": ("kd", "image-encoder", 3, 1e-5, 5e-4),
    "kd-tune-dkd": ("dkd", "image-encoder", 3, 1e-5, 5e-4),
    "kd-tune-atkd": ("atkd", "image-encoder", 3, 1e-5, 5e-4),
}
COMPARED = {
    "zero-shot": "zeroshot",
    "zero-student": "zero",
    "zero-reward": "zero",
    "mta": "mta",
    "tda": "tda",
    "ctpt-fine": "ctpt",
    "ctpt-shifts": "ctpt",
    "rlcf-anchored-prompt": "rlcf",
    "rlcf-anchored-tune": "rlcf",
}  # methods to compare with
LAUNCHERS = ["zero-shot", "tpt-prompt", "tpt-tune", "rlcf-prompt", "rlcf-prompt-fine", "rlcf-tune", "kd-tune"]


def read(name):
    return parse_config(ClassificationConfig, ["--config", str(CONFIGS / f"{name}.yaml")], "", "")


def launch(name, *arguments, root):
    environment = {**os.environ, "PYTHON": sys.executable, "RLCF_ROOT": str(root)}
    command = ["bash", str(ROOT / "scripts" / f"{name}.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=root)


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_have_the_published_settings(name):
    config = read(name)
    assert (config.method, config.tune, config.steps, config.lr, config.weight_decay) == PUBLISHED[name]
    assert (config.views, config.selection, config.sample_k, config.student) == (64, 0.1, 3, "ViT-B/16")
    assert config.augment == ("augmix" if name == "rlcf-prompt-fine" else "crop")
    assert config.reward_weights == ([10, 5, 3] if "ensemble" in name else None)
    assert config.momentum == name.endswith("momentum")
    assert (config.momentum_decay, config.momentum_every, config.momentum_weight) == (0.9998, 64, 1.0)


def test_every_preset_is_a_published_experiment_or_a_method_to_compare_with():
    found = {file.stem for file in CONFIGS.glob("*.yaml")}
    assert PUBLISHED.keys() <= found <= {*PUBLISHED, *COMPARED}
    for name in found & COMPARED.keys():
        assert read(name).method == COMPARED[name]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_wants_the_gpus_number_first(name, tmp_path):
    done = launch(name, "--limit", "3", root=tmp_path)
    assert done.returncode == 2 and "the first argument is the GPU's number, or cpu" in done.stderr


@pytest.mark.parametrize(("name", "variants"), [("rlcf-tune", "single ensemble"), ("kd-tune", "kd dkd atkd")])
def test_an_unknown_variant_is_told_with_the_known_ones(name, variants, tmp_path):
    done = launch(name, "0", "none", root=tmp_path)
    assert done.returncode == 2 and "unknown variant 'none'" in done.stderr and variants in done.stderr


@pytest.mark.slow
def test_a_launcher_runs_an_experiment_and_passes_flags_through(tmp_path):
    write_classification(tmp_path / "pictures", "blur", 1, seed=7)
    flags = "--datasets folder:pictures --student demo-student --reward demo-reward --limit 2 --views 10 --workers 0"
    done = launch("rlcf-tune", "cpu", "ensemble", *flags.split(), "--reward-weights", "1", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "folder:pictures: n 2" in done.stdout
    assert (tmp_path / "output" / "rlcf-tune-ensemble" / "results.json").is_file()
