"""Captioners' checkpoints, language models, and features to train captioners on."""

import json
import pickle
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from caption.language_model import load_language_model
from caption.mapper import read_checkpoint
from caption.training.examples import make_examples, split_examples
from caption.training.features import Features, read_features, write_features
from tests.fuzz.files import Tree, read_tree
from tests.fuzz.models import FEATURES, WIDTH, mapper, tiny_lm, tiny_lm_files
from tests.fuzz.reader import Reader
from tests.fuzz.readers.weights import saved


def captioner_seeds(folder: Path) -> dict[str, Tree]:
    tiny_lm_files(folder / "lm")  # its config tells what a captioner's own language model is
    own = {f"clip_project.{name}": tensor.detach() for name, tensor in mapper().state_dict().items()}
    lm = {f"llm.llm.{name}": tensor.detach() for name, tensor in tiny_lm().model.state_dict().items()}
    described = {"method": "clipcap", "heads": 4, "width": WIDTH, "student": "tiny", "epoch": 2}
    training = {"state_dict": own, "epoch": 2, "described": described, "key": "00" * 32, "scaler": {}}
    mlp = {"model.0.weight": torch.ones(48, FEATURES), "model.0.bias": torch.ones(48)}
    mlp |= {"model.2.weight": torch.ones(96, 48), "model.2.bias": torch.ones(96)}
    return {
        "safetensors": {"captioner/mapper.safetensors": save(own, {"captioner": json.dumps(described)})},
        "training": {"captioner/ckpt-latest.pt": saved(training)},
        "published": {"captioner.pt": saved({"state_dict": {**own, **lm}, "hyper_parameters": {"lr": 1e-5}})},
        "mlp": {"captioner.pt": saved({f"clip_project.{name}": tensor for name, tensor in mlp.items()})},
    }


@torch.no_grad()
def read_captioner(folder: Path, seed: str, beside: Path) -> None:
    file = folder / ("captioner" if seed in ("safetensors", "training") else "captioner.pt")
    checkpoint = read_checkpoint(str(file))
    built = checkpoint.build_mapper(WIDTH)
    if built.feature_width < 10_000:
        built(torch.ones(1, getattr(built, "feature_width", FEATURES)))
    if checkpoint.language_model:
        load_language_model(str(beside / "lm"), weights=checkpoint.language_model)


def lm_seeds(folder: Path) -> dict[str, Tree]:
    return {"opt": read_tree(tiny_lm_files(folder / "lm"))}


@torch.no_grad()
def read_lm(folder: Path, seed: str, beside: Path) -> None:
    lm = load_language_model(str(folder))
    ids, mask = lm.tokenize(["a dog above an owl", "a cat"])
    lm.token_log_likelihood(torch.zeros(2, 3, lm.width), ids, mask)


CAPTIONS = ["a dog above a key", "a cat below a car", "a pig above a key", "a dog below a car"]


def feature_seeds(folder: Path) -> dict[str, Tree]:
    rows = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0))
    (folder / "written").mkdir(parents=True, exist_ok=True)
    write_features(folder / "written", Features(CAPTIONS, [0, 0, 1, 1], [0, 1, 2, 3], rows[:2].clone(), rows, "tiny"))
    published = {"captions": CAPTIONS, "clip_image_embedding": [row[None] for row in rows[:2]]}
    published |= {"clip_text_embedding": rows, "image_index": [0, 0, 1, 1], "text_index": [0, 1, 2, 3]}
    written = {f"features/{name}": content for name, content in read_tree(folder / "written").items()}
    return {"written": written, "published": {"features.pkl": pickle.dumps(published)}}


def read_feature_files(folder: Path, seed: str, beside: Path) -> None:
    source = str(folder / ("features" if seed == "written" else "features.pkl"))
    features = read_features(source)
    for kind in ("image", "text"):
        examples = make_examples(tiny_lm(), features, kind, True, source)
        for part in split_examples(examples, features, 0.5, 0):
            if len(part):
                part.take(tiny_lm(), np.arange(len(part)))


CAPTIONERS = [
    Reader("captioners", captioner_seeds, read_captioner, 10),
    Reader("language-models", lm_seeds, read_lm, 8),
    Reader("features", feature_seeds, read_feature_files, 12),
]
