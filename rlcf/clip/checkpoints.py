"""CLIP checkpoints: weight files, read without running code in them, and the models built from them."""

import contextlib
import copy
import json
import logging
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import build_model_from_openai_state_dict
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor, nn

from rlcf.clip.text_tower import word_tokens
from rlcf.clip.unpickle import Unread
from rlcf.clip.weights import build_to_fit, read_weights, require_finite, tensors_in
from rlcf.errors import UserError

MADE_BY_THE_MODEL = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Entries of published and traced archives that are no weights."""


def load_clip_folder(folder: Path) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a folder with an open_clip_config.json and a weight file, as open_clip writes one.

    Raises UserError if one of the two is missing or damaged, if they do not fit together, and if the folder's
    tokenizer cannot be loaded.
    """
    config = folder / "open_clip_config.json"
    if not config.is_file():
        raise UserError(f"{folder} holds no open_clip_config.json; give a folder that open_clip wrote, or a file")
    weights = sorted(
        [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    )
    weights.sort(key=lambda file: not file.name.startswith("open_clip"))
    if not weights:
        raise UserError(f"{folder} holds an open_clip_config.json but no weights (*.safetensors, *.bin, *.pt)")
    return _load_configured(config, weights[0])


def _load_configured(config: Path, weights: Path) -> tuple[nn.Module, Any]:
    """The model of an open_clip config with weights in open_clip's key layout, and the tokenizer of their folder."""
    try:
        described = json.loads(config.read_text(encoding="utf-8"))
        model_cfg = described["model_cfg"]
        text_cfg, vision_cfg = model_cfg["text_cfg"], model_cfg["vision_cfg"]
        custom = model_cfg.pop("custom_text", False) or "hf_model_name" in text_cfg
        text_cfg["hf_model_pretrained"] = vision_cfg["timm_model_pretrained"] = False  # all weights are in the file
        layers = [*_numbers(text_cfg.get("layers", 0)), *_numbers(vision_cfg.get("layers", 0))]
        preprocess = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), described.get("preprocess_cfg")))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError, OverflowError) as error:
        raise UserError(
            f"{config} is no open_clip config: it needs a JSON object whose 'model_cfg' describes the image and the "
            "text tower, for RGB images"
        ) from error
    state_dict = _state_dict(weights)
    if sum(layers) > len(state_dict):
        raise UserError(f"{weights} does not fit the model that {config} describes (it has {sum(layers)} layers)")
    kind: Any = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        with quiet_root_logger():
            model = build_to_fit(lambda: kind(**copy.deepcopy(model_cfg)), state_dict)
        model.load_state_dict(state_dict)
    except Exception as error:  # sizes that do not fit raise many kinds of errors
        raise UserError(f"{weights} does not fit the model that {config} describes ({in_one_line(error)})") from error
    open_clip.model.set_model_preprocess_cfg(model, {**vars(preprocess), "size": model.visual.image_size})
    try:
        settings = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
        if len(settings.mean) != 3 or len(settings.std) != 3:
            raise ValueError("mean and std need three numbers each")
        view = image_transform_v2(settings, is_train=False)(Image.new("RGB", (8, 8)))
        if view.shape[0] != 3 or not view.isfinite().all():
            raise ValueError("an image's numbers are not finite")
    except Exception as error:  # settings of a wrong kind raise many
        raise UserError(f"{config} describes no input of images ({in_one_line(error)})") from error
    try:
        with quiet_root_logger():
            tokenizer = load_tokenizer(f"local-dir:{config.parent}", text_cfg)
            tokenizer(["a photo"])  # one without padding fails
            word_tokens(tokenizer, "a photo")
    except Exception as error:
        reason = in_one_line(error)
        raise UserError(f"{config.parent} names a tokenizer that cannot be loaded from it ({reason})") from error
    return model, tokenizer


def _numbers(value: Any) -> list[int]:
    return [int(part) for part in (value if isinstance(value, list) else [value])]


def load_tokenizer(name: str, text_cfg: dict[str, Any]) -> Any:
    """open_clip's tokenizer of a model; `text_cfg` of its config cannot ask for the code of a folder to be run.

    Raises many kinds of exceptions for a tokenizer that cannot be loaded.
    """
    refused = {"trust_remote_code": False} if text_cfg.get("hf_tokenizer_name") else {}
    return open_clip.get_tokenizer(name, **refused)


def load_clip_file(file: Path) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a checkpoint file.

    A file beside an open_clip_config.json has the architecture that the config describes. Any other file must be in
    OpenAI's key layout, which tells the architecture. Raises UserError for a file that is damaged or no such CLIP.
    """
    config = file.parent / "open_clip_config.json"
    if config.is_file():
        return _load_configured(config, file)
    state_dict = _state_dict(file)
    needed = {"text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight", "logit_scale"}
    vision = {"visual.proj", "visual.attnpool.positional_embedding"}
    if not (needed <= state_dict.keys() and vision & state_dict.keys()):
        raise UserError(
            f"{file} is no CLIP checkpoint in OpenAI's layout; "
            "for other towers put their open_clip_config.json beside it"
        )
    try:
        model = build_to_fit(
            lambda: build_model_from_openai_state_dict(dict(state_dict), cast_dtype=None), state_dict
        ).float()
        model.load_state_dict(state_dict)  # again, because building the model rounds fp32 weights to fp16
    except Exception as error:  # sizes that do not fit raise many kinds of errors
        raise UserError(f"{file} is no complete CLIP checkpoint ({in_one_line(error)})") from error
    open_clip.model.set_model_preprocess_cfg(model, vars(PreprocessCfg(size=model.visual.image_size)))
    return model, open_clip.SimpleTokenizer(context_length=model.context_length)


def _state_dict(file: Path) -> dict[str, Tensor]:
    """The weights of a file by name, without those entries that a model makes itself.

    Raises UserError for a file without a state dict, and for weights that are not finite.
    """
    held = read_weights(file)
    if not isinstance(held, dict):
        kind = held.name if isinstance(held, Unread) else type(held).__name__
        raise UserError(f"{file} holds a {kind}, not a state dict; save the model's state_dict() instead")
    tensors = {name: tensor for name, tensor in tensors_in(held).items() if name not in MADE_BY_THE_MODEL}
    require_finite(file, tensors)
    return tensors


def in_one_line(error: Exception) -> str:
    """The message of another library's error in one line, 200 characters at most; its type if there is no message."""
    lines = [line.strip() for line in str(error).splitlines()[:2]]  # torch names the weights in the second line
    return " ".join(lines)[:200] or type(error).__name__


@contextlib.contextmanager
def quiet_root_logger() -> Any:
    """Within this context nothing is logged: open_clip logs an error on the root logger before it raises it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
