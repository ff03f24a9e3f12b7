from pathlib import Path

import pytest

from caption.config import CaptionConfig
from caption.training.config import TrainConfig
from rlcf.run.config import parse_config

CONFIGS = Path(__file__).resolve().parents[2] / "caption" / "configs"
PUBLISHED = {  # steps, learning rate, K
    "tta-capdec-c2f": (4, 5e-6, 6),
    "tta-clipcap-c2f": (4, 2e-6, 10),
    "tta-capdec-c2n": (4, 3e-6, 6),
    "tta-clipcap-c2n": (4, 2e-6, 10),
}


@pytest.mark.parametrize("variant", ["single", "ensemble", "ensemble-momentum"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_adaptation_presets_have_the_published_settings(name, variant):
    flags = ["--config", str(CONFIGS / f"{name}-{variant}.yaml"), "--checkpoint", "run"]
    config = parse_config(CaptionConfig, flags, "", "")
    assert (config.steps, config.lr, config.sample_k) == PUBLISHED[name]
    assert (config.weight_decay, config.eps, config.beams) == (0.0, 1e-6, 5)
    assert config.datasets == ["flickr30k" if name.endswith("f") else "nocaps"]
    assert config.reward_weights == (None if variant == "single" else [10, 5, 3])
    assert config.momentum == (variant == "ensemble-momentum")


@pytest.mark.parametrize("method", ["clipcap", "capdec"])
def test_training_presets_have_the_published_settings(method):
    flags = ["--config", str(CONFIGS / f"train-{method}-coco.yaml"), "--data", "features"]
    config = parse_config(TrainConfig, flags, "", "")
    assert (config.method, config.epochs, config.batch_size, config.lr, config.warmup) == (method, 10, 40, 2e-5, 5000)
    assert (config.prefix_length, config.clip_length, config.layers, config.noise_variance) == (40, 40, 8, 0.016)
    assert not config.end_token


@pytest.mark.parametrize(("name", "dataset"), [("coco", "coco"), ("c2f", "flickr30k"), ("c2n", "nocaps")])
def test_captioners_without_adaptation_are_scored(name, dataset):
    config = parse_config(
        CaptionConfig, ["--config", str(CONFIGS / f"eval-{name}.yaml"), "--checkpoint", "run"], "", ""
    )
    assert (config.method, config.datasets, config.evaluate, config.beams) == ("zeroshot", [dataset], True, 5)


def test_there_is_no_other_preset():
    variants = ("single", "ensemble", "ensemble-momentum", "anchored")
    known = {f"{name}-{v}" for name in PUBLISHED for v in variants}
    known |= {"eval-coco", "eval-c2f", "eval-c2n"}
    known |= {f"train-{m}-{world}" for m in ("clipcap", "capdec") for world in ("coco", "demo")}
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == known
