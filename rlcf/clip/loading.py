"""Loads any CLIP by its name or path."""

import difflib
import json
import logging
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from rlcf.clip.architectures import QUICK
from rlcf.clip.backbone import Backbone
from rlcf.clip.checkpoints import (
    in_one_line,
    load_clip_file,
    load_clip_folder,
    load_named,
    load_openai,
    load_tokenizer,
    quiet_root_logger,
)
from rlcf.clip.weights import require_finite
from rlcf.data.command import own_command
from rlcf.errors import UserError
from rlcf.inputs.places import expanded
from rlcf.light_imports import import_towers
from rlcf.linear import use_linear
from rlcf.shipped import shipped_folder, shipped_names

OPENAI_ARCHITECTURES = {
    "RN50": "RN50",
    "RN101": "RN101",
    "RN50x4": "RN50x4",
    "RN50x16": "RN50x16",
    "RN50x64": "RN50x64",
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
"""OpenAI's names of its models -> open_clip's names of their architectures."""


def load_clip(
    name: str, device: str | torch.device = "cpu", precision: str = "fp32", clip_root: str | Path | None = None
) -> Backbone:
    """Loads a CLIP.

    name: one of
        an OpenAI name such as "ViT-B/16", read from `clip_root`/ViT-B-16.pt if there is such a file, else downloaded
        by open_clip;
        an open_clip architecture and the name of its weights, such as "ViT-B-16:laion2b_s34b_b88k";
        "hf-hub:" and a Hugging Face repository with an open_clip model;
        an open_clip architecture and the path of a file of its weights, such as "ViT-B-32:runs/epoch_10.pt";
        the path of a checkpoint file that tells its architecture, of a folder with its open_clip_config.json, or of a
        folder of Hugging Face with a CLIP or SigLIP (config.json, model.safetensors, ...);
        the name of a model that comes with the project.
    precision: "fp32", or "bf16" or "fp16" for autocast.
    Raises UserError for an unknown name, and naming the file that is missing or damaged.
    """
    device = torch.device(device)
    model, tokenizer = _load(name, clip_root)
    model = model.float().eval().requires_grad_(False).to(device)
    use_linear(model)
    visual: nn.Module = model.visual  # type: ignore[assignment]
    if any(isinstance(layer, nn.BatchNorm2d) for layer in visual.modules()):
        visual.to(memory_format=torch.channels_last)  # makes an episode of a ResNet 1.3 times faster on a CPU
    preprocess = merge_preprocess_dict(PreprocessCfg(), open_clip.get_model_preprocess_cfg(model))
    return Backbone(name, model, tokenizer, preprocess, device, precision)


def _load(name: str, clip_root: str | Path | None) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a name; `load_clip` lists the names."""
    path = Path(expanded(name))
    shipped = shipped_folder(name)
    if shipped is not None and not path.is_dir():
        return load_clip_folder(shipped)
    if name.startswith("hf-hub:"):
        return _download(name, name), _download_tokenizer(name)
    if name in OPENAI_ARCHITECTURES:
        file = Path(expanded(str(clip_root))) / openai_file_name(name) if clip_root else None
        if file is not None and file.is_file():
            return load_openai(file)
        architecture = OPENAI_ARCHITECTURES[name]
        return _download(architecture, name, "openai", file), open_clip.get_tokenizer(architecture)
    if path.is_dir():
        return load_clip_folder(path)
    if path.is_file():
        return load_clip_file(path)
    architecture, _, tag = name.partition(":")
    architecture = architecture.replace("/", "-")
    if tag and architecture.removesuffix(QUICK) in open_clip.list_models():
        file = Path(expanded(tag))
        if file.is_file():
            return load_named(architecture, file)
        if "/" in tag or file.suffix:
            raise UserError(f"no checkpoint file {file} of {architecture}")
    if architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if tag not in tags:
            lacks = f"has no weights '{tag}'" if tag else "needs its weights' name after a colon"
            raise UserError(f"{architecture} {lacks}; open_clip knows {', '.join(tags) or 'none'}")
        return _download(architecture, name, tag), open_clip.get_tokenizer(architecture)
    raise UserError(_unknown(name))


def openai_file_name(name: str) -> str:
    """The file name that OpenAI's own loader gives a model.

    >>> openai_file_name("ViT-L/14@336px")
    'ViT-L-14-336px.pt'
    """
    return name.replace("/", "-").replace("@", "-") + ".pt"


def _unknown(name: str) -> str:
    """The message for a name that is neither a known model nor an existing path."""
    architecture, _, file = name.partition(":")
    if file and Path(expanded(file)).is_file():
        near = difflib.get_close_matches(architecture.replace("/", "-"), open_clip.list_models(), n=1)
        meant = f"did you mean '{near[0]}'? " if near else ""
        return (
            f"open_clip knows no architecture '{architecture}' for {file}; {meant}Their names: open_clip.list_models()"
        )
    if "/" in name and name not in OPENAI_ARCHITECTURES and Path(name).suffix:
        return f"no checkpoint file {name}"
    names = [*OPENAI_ARCHITECTURES, *shipped_names("open_clip_config.json")]
    near = difflib.get_close_matches(name, [*names, *open_clip.list_models()], n=1)
    advice = f"did you mean '{near[0]}'? Give" if near else "give"
    return (
        f"unknown model '{name}'; {advice} one of {', '.join(names)}, an open_clip pair such as "
        "ViT-B-16:laion2b_s34b_b88k, ViT-B-16:FILE, hf-hub:..., or the path of a checkpoint"
    )


def _download_tokenizer(name: str) -> Any:
    """The tokenizer of "hf-hub:" and a repository. Raises UserError if it cannot be loaded."""
    try:
        config = download_pretrained_from_hf(name.removeprefix("hf-hub:"), "open_clip_config.json")
        text_cfg = json.loads(Path(config).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        with quiet_root_logger():
            return load_tokenizer(name, text_cfg)
    except Exception as error:  # open_clip and its download libraries raise many kinds
        raise UserError(
            f"the tokenizer of {name} could not be downloaded or read ({in_one_line(error)}); download it on a "
            "connected machine and give the path of its folder"
        ) from error


def _download(architecture: str, name: str, tag: str | None = None, missing: Path | None = None) -> nn.Module:
    """A model whose weights open_clip downloads or finds in its cache.

    tag: open_clip's name of the weights. missing: the file that the weights were looked for in before.
    Raises UserError if open_clip cannot make the model, and for weights that are not finite.
    """
    # OpenAI's and some other weights were trained with QuickGELU.
    config = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    logging.getLogger("open_clip").setLevel(logging.CRITICAL)
    import_towers(None if architecture.startswith("hf-hub:") else open_clip.get_model_config(architecture))
    try:
        with quiet_root_logger():
            model = open_clip.create_model(
                architecture, pretrained=tag, force_quick_gelu=bool(config.get("quick_gelu")), weights_only=True
            )
    except Exception as error:  # open_clip and its download libraries raise many kinds
        where = f"there is no {missing} and " if missing else ""
        get = "download it on a connected machine and give the path of its folder"
        if name in OPENAI_ARCHITECTURES:
            get = f"on a connected machine '{own_command()} get {name}' downloads it; --clip-root names its folder"
        raise UserError(f"{where}{name} could not be downloaded or read ({in_one_line(error)}); {get}") from error
    require_finite(name, model.state_dict())
    return model
