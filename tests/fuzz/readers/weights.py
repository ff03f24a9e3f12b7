"""Weight files, CLIPs as files and as folders, and CoOp contexts."""

import io
import json
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from classification.context import initial_context
from demo.train_language_model import build_tokenizer
from rlcf.adapt.views import Views
from rlcf.clip.backbone import Backbone
from rlcf.clip.loading import load_clip
from rlcf.clip.weights import read_weights, require_finite, tensors_in
from tests.fuzz.files import Tree, read_tree
from tests.fuzz.models import tiny_clip
from tests.fuzz.reader import Reader
from tests.tools import OPENAI_TEXT, VIT, build_clip


def saved(content: Any, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def scripted(model: torch.nn.Module, *inputs: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(model, inputs, check_trace=False) if inputs else torch.jit.script(model)
        torch.jit.save(made, stream)
    return stream.getvalue()


def weight_seeds(folder: Path) -> dict[str, Tree]:
    tensors = {"a": torch.arange(30.0), "b": torch.ones(3, 2).half(), "c.d": torch.zeros(2, 2, dtype=torch.int64)}
    content = {"state_dict": tensors, "lr": [1, 2.5, {"x": None}], "args": Namespace(a=1), "epoch": 3}
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    return {
        "zip": {"weights.pt": saved(content)},
        "legacy": {"weights.pt": saved(content, legacy=True)},
        "archive": {"weights.script": scripted(net)},
        "traced archive": {"weights.script": scripted(net.eval(), torch.ones(1, 2))},
        "safetensors": {"weights.safetensors": save(tensors, {"format": "pt"})},
    }


def read_weight_file(folder: Path, seed: str, beside: Path) -> None:
    file = folder / {"safetensors": "weights.safetensors"}.get(
        seed, "weights.script" if "archive" in seed else "weights.pt"
    )
    require_finite(file, tensors_in(read_weights(file)))


class Traced(torch.nn.Module):
    """A CLIP whose archive holds its weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for parameter in self.parameters():
            x = x + parameter.float().sum()
        return x


def clip_file_seeds(folder: Path) -> dict[str, Tree]:
    def state(**vision: Any) -> dict[str, torch.Tensor]:
        kind = {"vision": {**VIT, "layers": 1, **vision}, "text": {**OPENAI_TEXT, "layers": 1}}
        model = build_clip(**kind, seed=1, quick_gelu=True)
        return {name: tensor.half() for name, tensor in model.state_dict().items() if name != "attn_mask"}

    resnet = {"image_size": 64, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
    model = build_clip(vision={**VIT, "layers": 1}, text={**OPENAI_TEXT, "layers": 1}, quick_gelu=True).half()
    return {
        "zip": {"clip.pt": saved(state())},
        "legacy": {"clip.pt": saved({"state_dict": state(), "epoch": 1}, legacy=True)},
        "resnet": {"clip.pt": saved(state(**resnet))},
        "safetensors": {"clip.safetensors": save(state())},
        "traced archive": {"clip.script": scripted(Traced(model), torch.zeros(1))},
    }


def clip_folder_seeds(folder: Path) -> dict[str, Tree]:
    tokenizer = build_tokenizer(folder / "words")
    words = {file.name: file.read_bytes() for file in (folder / "words").iterdir()}
    seeds: dict[str, Tree] = {}
    text = {"context_length": 16, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 1}
    pieces = {**OPENAI_TEXT, "width": 32, "layers": 1}
    vit = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 64}
    resnet = {"image_size": 32, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
    for name, vision in (("vit", vit), ("resnet", resnet)):
        model = build_clip(vision=vision, text=text)
        config = {
            "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "local"}},
            "preprocess_cfg": {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"},
        }
        seeds[name] = {
            **words,
            "open_clip_config.json": json.dumps(config).encode(),
            "open_clip_model.safetensors": save({k: v.contiguous() for k, v in model.state_dict().items()}),
        }
    described = json.loads(seeds["vit"]["open_clip_config.json"])
    described["model_cfg"]["text_cfg"] = pieces
    seeds["pieces"] = {
        "open_clip_config.json": json.dumps(described).encode(),
        "open_clip_pytorch_model.bin": saved(build_clip(vision=vit, text=pieces).state_dict()),
    }
    return seeds


def hugging_face_seeds(folder: Path) -> dict[str, Tree]:
    tokenizer = build_tokenizer(folder / "words")
    words = {file.name: file.read_bytes() for file in (folder / "words").iterdir()}
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    ends = {"bos_token_id": 0, "eos_token_id": len(tokenizer) - 1, "pad_token_id": 1}
    text = {**shape, "vocab_size": len(tokenizer), "max_position_embeddings": 12, **ends}
    vision = {**shape, "image_size": 32, "patch_size": 16}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
    siglip = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    seeds: dict[str, Tree] = {}
    for name, model, size in (("clip", clip, "5GB"), ("siglip", siglip, "5GB"), ("parts", clip, "50KB")):
        model.save_pretrained(folder / name, max_shard_size=size)
        seeds[name] = {**read_tree(folder / name), **words}
    prepared = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"shortest_edge": 32}}
    seeds["clip"]["preprocessor_config.json"] = json.dumps(prepared).encode()
    return seeds


def use(clip: Backbone) -> None:
    """All that a run asks of a CLIP: the features of an image and of texts."""
    view = Views(clip.centre_view, clip.size, count=2)(Image.new("RGB", (40, 30), "red"), 0)
    assert isinstance(view, torch.Tensor)
    clip.encode_image(clip.prepare(view))
    texts = ["a dog", "an owl above a red apple"]
    clip.encode_text(texts), clip.truncated(texts), clip.digest, float(clip.logit_scale)


def read_clip_file(folder: Path, seed: str, beside: Path) -> None:
    use(
        load_clip(
            str(folder / {"safetensors": "clip.safetensors", "traced archive": "clip.script"}.get(seed, "clip.pt"))
        )
    )


def coop_seeds(folder: Path) -> dict[str, Tree]:
    held = {
        "state_dict": {"ctx": torch.ones(4, 64), "token_prefix": torch.ones(3, 1, 64)},
        "epoch": 50,
        "val_result": 61.2,
    }
    return {
        "file": {"coop.pt": saved(held)},
        "legacy": {"coop.pt": saved(held, legacy=True)},
        "folder": {"coop.pt/prompt_learner/model.pth.tar-50": saved(held)},
        "safetensors": {"coop.safetensors": save({"ctx": torch.ones(4, 64)})},
    }


def read_coop(folder: Path, seed: str, beside: Path) -> None:
    file = folder / ("coop.safetensors" if seed == "safetensors" else "coop.pt")
    initial_context(tiny_clip(), str(file), 4, "a photo of a", 0)


WEIGHTS = [
    Reader("weights", weight_seeds, read_weight_file, 25),
    Reader("clip-files", clip_file_seeds, read_clip_file, 5, refused=("legacy",)),
    Reader("clip-folders", clip_folder_seeds, lambda folder, seed, beside: use(load_clip(str(folder))), 12),
    Reader("hugging-face", hugging_face_seeds, lambda folder, seed, beside: use(load_clip(str(folder))), 6),
    Reader("coop", coop_seeds, read_coop, 8),
]
