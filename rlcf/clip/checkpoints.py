"""CLIP checkpoints: weight files, read without running code in them, and the models built from them."""

import contextlib
import copy
import logging
from pathlib import Path
from typing import Any

import open_clip
from open_clip.model import build_model_from_openai_state_dict
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor, nn

from rlcf.clip.architectures import QUICK, is_openai, is_openai_layout, require_activation
from rlcf.clip.file_tokenizer import file_tokenizer
from rlcf.clip.text_tower import try_tokenizer, word_tokens
from rlcf.clip.unpickle import Unread
from rlcf.clip.weights import build_to_fit, read_weights, require_finite, tensors_in
from rlcf.errors import UserError
from rlcf.inputs.json_files import read_json
from rlcf.light_imports import import_towers

INPUT = ("mean", "std", "interpolation", "resize_mode")
"""Settings of the input that open_clip keeps with published weights."""
LOCAL = "local-dir:"
"""Stands before a folder in open_clip's names."""
HUGGING_FACE = ("clip", "siglip")
"""model_type of the folders of `transformers` that are read."""
MADE_BY_THE_MODEL = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Entries of published and traced archives that are no weights."""


def load_clip_folder(folder: Path) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a folder: open_clip's, with an open_clip_config.json and a weight file, or a CLIP
    or SigLIP of `transformers`.

    Raises UserError if config or weights are missing or damaged, if they do not fit together, and if the folder's
    tokenizer cannot be loaded.
    """
    config = folder / "open_clip_config.json"
    if not config.is_file():
        if is_hugging_face(folder):
            return _load_hugging_face(folder)
        raise UserError(
            f"{folder} holds no open_clip_config.json, and no config.json of a CLIP or SigLIP; give a folder that "
            "open_clip or transformers wrote, or a file"
        )
    weights = sorted(
        [*folder.glob("*.safetensors"), *folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]
    )
    weights.sort(key=lambda file: not file.name.startswith("open_clip"))
    if not weights:
        raise UserError(f"{folder} holds an open_clip_config.json but no weights (*.safetensors, *.bin, *.pt)")
    return _load_configured(config, weights[0])


def is_hugging_face(folder: Path) -> bool:
    """True for a folder with the config.json of a CLIP or SigLIP."""
    config = folder / "config.json"
    held = read_json(config) if config.is_file() else None
    return isinstance(held, dict) and str(held.get("model_type")) in HUGGING_FACE


def _load_hugging_face(folder: Path) -> tuple[nn.Module, Any]:
    from rlcf.clip.hugging_face import load_hugging_face  # imports transformers and timm

    return load_hugging_face(folder)


def _load_configured(config: Path, weights: Path) -> tuple[nn.Module, Any]:
    """The model of an open_clip config with weights in open_clip's key layout, and the tokenizer of their folder."""
    try:
        described = read_json(config)
        model_cfg = described["model_cfg"]
        text_cfg = model_cfg["text_cfg"]
        preprocess = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), described.get("preprocess_cfg")))
    except (UserError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{config} is no open_clip config: it needs a JSON object whose 'model_cfg' describes the image and the "
            "text tower, for RGB images"
        ) from error
    model = _build(model_cfg, f"the model that {config} describes", weights)
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
            tokenizer = load_tokenizer(f"{LOCAL}{config.parent}", text_cfg)
            try_tokenizer(tokenizer)
            word_tokens(tokenizer, "a photo")
    except Exception as error:
        reason = in_one_line(error)
        raise UserError(f"{config.parent} names a tokenizer that cannot be loaded from it ({reason})") from error
    return model, tokenizer


def load_named(architecture: str, file: Path) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a checkpoint file of one of open_clip's architectures.

    architecture: its name, which "-quickgelu" may follow. The activation is the architecture's; OpenAI's own files have
    theirs. Raises UserError for a file that is damaged or of another architecture, and for
    a tokenizer that cannot be loaded.
    """
    plain = architecture.removesuffix(QUICK)
    named = architecture if architecture in open_clip.list_models() else plain
    model_cfg = copy.deepcopy(open_clip.get_model_config(named))
    quick = plain != architecture or bool(model_cfg.get("quick_gelu"))
    model_cfg["quick_gelu"] = quick or is_openai(read_weights(file))
    model = _build(model_cfg, f"the architecture {architecture}", file)
    inputs = [open_clip.get_pretrained_cfg(plain, tag) for tag in open_clip.list_pretrained_tags_by_model(plain)]
    known = [{key: given[key] for key in INPUT if key in given} for given in inputs]
    preprocess = vars(PreprocessCfg()) | (known[0] if known and all(one == known[0] for one in known) else {})
    open_clip.model.set_model_preprocess_cfg(model, {**preprocess, "size": model.visual.image_size})
    try:
        with quiet_root_logger():
            return model, load_tokenizer(named, model_cfg["text_cfg"])
    except Exception as error:  # open_clip and its download libraries raise many kinds
        raise UserError(
            f"the tokenizer of {architecture} could not be downloaded or read ({in_one_line(error)}); put {file} into "
            "a folder with its open_clip_config.json and tokenizer"
        ) from error


def _build(model_cfg: dict[str, Any], called: str, weights: Path) -> Any:
    """The model of open_clip's settings with the weights of a file. called: its name in an error.

    Raises UserError for weights that are damaged or do not fit.
    """
    state_dict = _state_dict(weights)
    try:
        text_cfg, vision_cfg = model_cfg["text_cfg"], model_cfg["vision_cfg"]
        custom = model_cfg.pop("custom_text", False) or "hf_model_name" in text_cfg
        text_cfg["hf_model_pretrained"] = vision_cfg["timm_model_pretrained"] = False  # all weights are in the file
        layers = [*_numbers(text_cfg.get("layers", 0)), *_numbers(vision_cfg.get("layers", 0))]
        kind: Any = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{called} is none: it lacks an image or a text tower, or numbers of layers") from error
    if sum(layers) > len(state_dict):
        raise UserError(f"{weights} does not fit {called} (it has {sum(layers)} layers)")
    try:
        import_towers(model_cfg)
        with quiet_root_logger():
            model = build_to_fit(lambda: kind(**copy.deepcopy(model_cfg)), state_dict)
        if getattr(model, "logit_bias", None) is None:
            state_dict.pop("logit_bias", None)  # of a training with SigLIP's loss; all classes' logits have the same
        model.load_state_dict(state_dict)
    except Exception as error:  # sizes that do not fit raise many kinds of errors
        raise UserError(f"{weights} does not fit {called} ({in_one_line(error)})") from error
    return model


def _numbers(value: Any) -> list[int]:
    return [int(part) for part in (value if isinstance(value, list) else [value])]


def load_tokenizer(name: str, text_cfg: dict[str, Any]) -> Any:
    """open_clip's tokenizer of a model; `text_cfg` of its config cannot ask for the code of a folder to be run.

    Raises many kinds of exceptions for a tokenizer that cannot be loaded.
    """
    plain = file_tokenizer(Path(name.removeprefix(LOCAL)), text_cfg) if name.startswith(LOCAL) else None
    if plain is not None:
        return plain
    refused = {"trust_remote_code": False} if text_cfg.get("hf_tokenizer_name") else {}
    return open_clip.get_tokenizer(name, **refused)


def load_clip_file(file: Path) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a checkpoint file.

    A file beside an open_clip_config.json has the architecture that the config describes. Any other file must be in
    OpenAI's key layout, which tells the architecture but for its activation. Raises UserError for a file that is
    damaged or no such CLIP, and for one that cannot tell its activation.
    """
    config = file.parent / "open_clip_config.json"
    if config.is_file():
        return _load_configured(config, file)
    if file.name in ("model.safetensors", "pytorch_model.bin") and is_hugging_face(file.parent):
        return _load_hugging_face(file.parent)
    held = read_weights(file)
    state_dict = _tensors(file, held)
    if not is_openai_layout(state_dict):
        raise UserError(
            f"{file} is no CLIP checkpoint in OpenAI's layout; name its architecture before it, such as "
            f"ViT-B-16-SigLIP:{file}, or put its open_clip_config.json beside it"
        )
    if not is_openai(held):
        require_activation(file, held, state_dict)
    return load_openai(file, state_dict)


def load_openai(file: Path, state_dict: dict[str, Tensor] | None = None) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a file in OpenAI's layout, with OpenAI's activation.

    state_dict: of the file, where it is read already. Raises UserError for a file that is damaged or no such CLIP.
    """
    state_dict = _state_dict(file) if state_dict is None else state_dict
    if not is_openai_layout(state_dict):
        raise UserError(f"{file} is no CLIP checkpoint in OpenAI's layout; download it again")
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

    Raises UserError for a file without a state dict, for weights that are not finite, and for Hugging Face's names.
    """
    return _tensors(file, read_weights(file))


def _tensors(file: Path, held: Any) -> dict[str, Tensor]:
    """The same of what a file holds."""
    if not isinstance(held, dict):
        kind = held.name if isinstance(held, Unread) else type(held).__name__
        raise UserError(f"{file} holds a {kind}, not a state dict; save the model's state_dict() instead")
    tensors = {name: tensor for name, tensor in tensors_in(held).items() if name not in MADE_BY_THE_MODEL}
    require_finite(file, tensors)
    if any(name.startswith("vision_model.") for name in tensors):
        raise UserError(f"{file} is in Hugging Face's layout; put its config.json beside it and give their folder")
    return tensors


def in_one_line(error: Exception) -> str:
    """The message of another library's error in one line, 200 characters at most; its type if there is no message."""
    lines = [line.strip() for line in str(error).splitlines()[:2]]  # torch names the weights in the second line
    told = " ".join(lines)
    return (told if len(told) <= 200 else f"{told[:197]}...") or type(error).__name__


@contextlib.contextmanager
def quiet_root_logger() -> Any:
    """Within this context nothing is logged: open_clip logs an error on the root logger before it raises it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
