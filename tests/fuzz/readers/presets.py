"""Presets."""

import math
from pathlib import Path

import yaml

from caption.config import CaptionConfig
from caption.training.config import FeatureConfig, TrainConfig
from classification.config import ClassificationConfig
from retrieval.config import RetrievalConfig
from rlcf.run.config import parse_config
from tests.fuzz.files import Tree
from tests.fuzz.reader import Reader

KINDS = {
    "classification": (ClassificationConfig, {"method": "rlcf", "tune": "prompt", "lr": 7e-3, "steps": 3, "views": 64}),
    "retrieval": (RetrievalConfig, {"direction": "i2t", "reward": ["ViT-L/14", "RN50x64"], "reward_weights": [10, 3]}),
    "caption": (CaptionConfig, {"datasets": ["coco"], "sample_k": 10, "steps": 4, "checkpoint": "x", "momentum": True}),
    "training": (TrainConfig, {"data": "features", "method": "capdec", "noise_variance": 0.016, "validation": None}),
    "extraction": (FeatureConfig, {"data": "x", "captions": "list.json", "images": False, "batch_size": 64}),
}


def preset_seeds(folder: Path) -> dict[str, Tree]:
    return {name: {"preset.yaml": yaml.safe_dump(held).encode()} for name, (_, held) in KINDS.items()}


def read_preset_file(folder: Path, seed: str, beside: Path) -> None:
    config = parse_config(KINDS[seed][0], ["--config", str(folder / "preset.yaml")], "", "")
    numbers = [value for value in vars(config).values() if isinstance(value, float)]
    assert all(math.isfinite(number) for number in numbers)


PRESETS = [Reader("presets", preset_seeds, read_preset_file, 12)]
