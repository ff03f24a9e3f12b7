"""CLIP checkpoints: weight files, read without running code in them, and the models built from them."""

import contextlib
import json
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import build_model_from_openai_state_dict
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from rlcf.errors import UserError


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
        custom = model_cfg.pop("custom_text", False) or "hf_model_name" in model_cfg["text_cfg"]
        preprocess = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), described.get("preprocess_cfg")))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise UserError(
            f"{config} is no open_clip config: it needs a JSON object whose 'model_cfg' describes the image and the "
            "text tower, for RGB images"
        ) from error
    state_dict = _state_dict(weights)
    try:
        with quiet_root_logger():
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**model_cfg)
        model.load_state_dict(state_dict)
    except Exception as error:  # sizes that do not fit raise many kinds of errors
        raise UserError(f"{weights} does not fit the model that {config} describes ({in_one_line(error)})") from error
    open_clip.model.set_model_preprocess_cfg(model, {**vars(preprocess), "size": model.visual.image_size})
    try:
        with quiet_root_logger():
            tokenizer = open_clip.get_tokenizer(f"local-dir:{config.parent}")
    except Exception as error:
        reason = in_one_line(error)
        raise UserError(f"{config.parent} names a tokenizer that cannot be loaded from it ({reason})") from error
    return model, tokenizer


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
        model = build_model_from_openai_state_dict(dict(state_dict), cast_dtype=None).float()
        model.load_state_dict(state_dict)  # again, because building the model rounds fp32 weights to fp16
    except Exception as error:  # sizes that do not fit raise many kinds of errors
        raise UserError(f"{file} is no complete CLIP checkpoint ({in_one_line(error)})") from error
    open_clip.model.set_model_preprocess_cfg(model, vars(PreprocessCfg(size=model.visual.image_size)))
    return model, open_clip.SimpleTokenizer(context_length=model.context_length)


def _state_dict(file: Path) -> dict[str, Tensor]:
    """The weights of a file by name, without a "module." prefix and without OpenAI's three entries for sizes."""
    checkpoint = read_weights(file)
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict):
        checkpoint = checkpoint["state_dict"]
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file} holds a {type(checkpoint).__name__}, not a state dict")
    tensors = {str(key).removeprefix("module."): value for key, value in checkpoint.items() if torch.is_tensor(value)}
    return {k: v for k, v in tensors.items() if k not in ("input_resolution", "context_length", "vocab_size")}


def read_weights(file: Path) -> Any:
    """Loads a weight file to the CPU without running any code in it.

    Reads safetensors files, torch.save files and TorchScript archives. Returns the state dict of an archive, and the
    content of any other file as it is. Raises UserError for a file that is missing or damaged, or that holds objects
    other than tensors, plain containers and numpy scalars.
    """
    if not file.is_file():
        raise UserError(f"no weight file {file}")
    numpy_scalars: list[Any] = [
        np.float64(0).__reduce__()[0],
        np.dtype,
        *(type(np.dtype(kind)) for kind in ("float32", "float64", "int64", "bool")),
    ]
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        if _is_torchscript(file):
            return torch.jit.load(str(file), map_location="cpu").state_dict()
        with torch.serialization.safe_globals(numpy_scalars):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise many kinds of errors
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # an import that is refused
            raise UserError(f"{file} holds pickled objects other than tensors, which are not loaded") from error
        raise UserError(f"{file} is damaged or no weight file; download it again") from error


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


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
