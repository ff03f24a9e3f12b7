"""Finds the architecture of weights in OpenAI's key layout, and refuses those whose activation is not certain."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from rlcf.clip.weights import tensors_in
from rlcf.errors import UserError

logger = logging.getLogger("rlcf")

QUICK = "-quickgelu"
"""End of the names of architectures with OpenAI's activation."""


def is_openai_layout(state_dict: Mapping[str, Tensor]) -> bool:
    """True for the names of weights that OpenAI's files have, and open_clip's of the same architectures."""
    needed = {"text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight", "logit_scale"}
    vision = {"visual.proj", "visual.attnpool.positional_embedding"}
    return needed <= state_dict.keys() and bool(vision & state_dict.keys())


def is_openai(held: Any) -> bool:
    """True for the content of a file of OpenAI's, which holds sizes beside the weights. Its activation is QuickGELU."""
    return isinstance(held, dict) and {"input_resolution", "context_length", "vocab_size"} <= tensors_in(held).keys()


def require_activation(file: Path, held: Any, state_dict: Mapping[str, Tensor]) -> None:
    """Raises UserError for weights in OpenAI's layout that may be another's, whose activation is GELU.

    That is a trainer's checkpoint, and the weights of an architecture that others have trained. Others are taken for
    OpenAI's, and the log says so.
    """
    trained = isinstance(held, dict) and (
        any(isinstance(value, dict) for value in held.values()) or not state_dict.keys() <= held.keys()
    )
    named = architectures_of(state_dict)
    if trained or named:
        name = named[0] if named else "ARCHITECTURE"
        raise UserError(
            f"{file} does not tell its activation; write {name}:{file} for GELU, as open_clip trains, or "
            f"{name}{QUICK}:{file} for QuickGELU, as in OpenAI's models, or put its open_clip_config.json beside it"
        )
    logger.warning("%s does not tell its activation; it is taken for QuickGELU, as in OpenAI's models", file)


def architectures_of(state_dict: Mapping[str, Tensor]) -> list[str]:
    """The names of open_clip's architectures with the sizes of these weights, the shortest first."""
    sizes = {name: tuple(tensor.shape) for name, tensor in state_dict.items()}
    width, embed = sizes["text_projection"]
    grid = sizes.get("visual.positional_embedding", (0,))[0]
    patch = sizes.get("visual.conv1.weight", (0,))[-1]

    def blocks(prefix: str) -> int:
        return len({name.removeprefix(prefix).split(".")[0] for name in sizes if name.startswith(prefix)})

    vit = "visual.proj" in sizes
    layers: Any = blocks("visual.transformer.resblocks.")
    if not vit:
        layers = [blocks(f"visual.layer{stage}.") for stage in range(1, 5)]
    found = []
    for name in open_clip.list_models():
        cfg = open_clip.get_model_config(name)
        text, vision = cfg["text_cfg"], cfg["vision_cfg"]
        image = vision.get("image_size", 224)
        same = [
            not cfg.get("custom_text") and "timm_model_name" not in vision and "hf_model_name" not in text,
            cfg["embed_dim"] == embed and text.get("width") == width and vision.get("layers") == layers,
            text.get("layers") == blocks("transformer.resblocks."),
            text.get("vocab_size") == sizes["token_embedding.weight"][0],
            text.get("context_length") == sizes["positional_embedding"][0],
            not vit or vision.get("width") == sizes["visual.proj"][0],
            not vit or (vision.get("patch_size") == patch and (image // max(patch, 1)) ** 2 + 1 == grid),
            vit or (image // 32) ** 2 + 1 == sizes["visual.attnpool.positional_embedding"][0],
        ]
        if all(same) and not name.endswith(QUICK):
            found.append(name)
    return sorted(found, key=len)
