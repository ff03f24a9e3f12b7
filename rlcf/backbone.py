"""Any CLIP, by name or path: one object that encodes images and texts to unit-length features."""

import contextlib
import difflib
import json
import logging
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import build_model_from_openai_state_dict
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import tqdm

from rlcf.errors import UserError
from rlcf.prompted_text import TextTower, word_tokens
from rlcf.transformer import encode_class_token, pools_class_token

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
"""The field's names of OpenAI's models -> open_clip's names of their architectures."""

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = ("demo-student", "demo-reward")
TEXT_BATCH = 256
CACHED_PIXELS = 4 * 224 * 224
"""On a CPU, of the images that pass a tower together when nothing is learnt: so few that its activations stay in the
cache (16 times 4 images were 1.2 times faster than 64 at once through ViT-B/16)."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """What a model computes under. precision: "fp32", or "bf16" / "fp16" autocast."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP in eval mode.

    size: (H, W) of its input, pixels; mean, std: of its input, RGB in [0, 1]; precision: "fp32", or "bf16" / "fp16"
    autocast. Features come back as fp32, unit length.
    """

    name: str
    model: Any
    tokenizer: Any
    preprocess: dict[str, Any]
    device: torch.device
    precision: str = "fp32"

    @property
    def size(self) -> tuple[int, int]:
        size = self.preprocess["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def logit_scale(self) -> Tensor:
        """exp(temperature), a scalar. (SigLIP's bias is the same for all classes: the softmax does not see it.)"""
        return self.model.logit_scale.exp().float().squeeze()

    @cached_property
    def text_tower(self) -> TextTower | None:
        """None for a text tower that cannot be driven by embeddings (Hugging Face text encoders, CoCa)."""
        try:
            return TextTower(self.model)
        except TypeError:
            return None

    @property
    def centre_view(self) -> Callable[[Image.Image], Tensor]:
        """The model's own evaluation transform without its normalisation: PIL image -> (3, H, W) in [0, 1]."""
        transform = image_transform_v2(PreprocessCfg(**self.preprocess), is_train=False)
        transform.transforms = transform.transforms[:-1]
        return transform

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.device, self.precision)

    def prepare(self, images: Tensor) -> Tensor:
        """Pixels as this model wants them, on its device.

        images: (N, 3, H, W), uint8 in 0..255 or float in [0, 1], of any size; another size than the model's is
        resized as published (bicubic, align_corners). Returns (N, 3, *size), normalised.
        """
        given = images.to(self.device)
        images = given.float()
        if given.dtype == torch.uint8:
            images = images.div_(255.0)  # a new tensor; a float one is the caller's
        if tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, size=self.size, mode="bicubic", align_corners=True)
        mean, std = (images.new_tensor(self.preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
        return (images - mean).div_(std)

    def encode_image(self, pixels: Tensor, whole: bool = False) -> Tensor:
        """pixels: (N, 3, *size) from `prepare`. Returns (N, D), unit length; with a graph where gradients are on.

        whole: an image's features depend on the others' (statistics of a batch, layers of several samples).
        """
        few = len(pixels)
        if not whole and self.device.type == "cpu" and self.precision == "fp32" and not torch.is_grad_enabled():
            few = max(1, CACHED_PIXELS // (self.size[0] * self.size[1]))
        with self.autocast():
            features = torch.cat([self._image_features(part) for part in pixels.split(few)])
        return F.normalize(features.float(), dim=-1)

    @cached_property
    def _image_features(self) -> Callable[[Tensor], Tensor]:
        visual = self.model.visual
        return partial(encode_class_token, visual) if pools_class_token(visual) else self.model.encode_image

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(N, context length) ids on the model's device. Raises UserError for a word the vocabulary lacks."""
        tokens = self.tokenizer(list(texts))
        unknown = getattr(getattr(self.tokenizer, "tokenizer", None), "unk_token_id", None)
        if unknown is not None and self.name in EMBEDDED and bool((tokens == unknown).any()):
            text = texts[int((tokens == unknown).any(dim=1).nonzero()[0])]
            raise UserError(f"{self.name} knows the words of the emoji scenes only, not those of '{text}'; use a CLIP")
        return tokens.to(self.device)

    def truncated(self, texts: Sequence[str]) -> int:
        """Number of texts that are longer than the context; `tokenize` cuts them, keeping the end-of-text token."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        room = self.tokenize(texts[:1]).shape[1] - getattr(inner, "num_special_tokens_to_add", lambda: 2)()
        long = [text for text in texts if len(text.encode()) >= room]  # a token is at least a byte
        return sum(len(word_tokens(self.tokenizer, text)) > room for text in long)

    def encode_tokens(self, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """tokens: (N, L) from `tokenize`. Returns (N, D), unit length; with a graph where gradients are on.

        embeddings: (N, L, width) of the tokens, where they are others than the `text_tower`'s own.
        """
        tower = self.text_tower
        with self.autocast():
            if tower is None:
                features = self.model.encode_text(tokens)
            else:
                features = tower(tower.embed(tokens) if embeddings is None else embeddings, tokens)
        return F.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], desc: str | None = None) -> Tensor:
        """Features of texts, (N, D), unit length, without a graph. desc: what a progress bar calls them."""
        batches = self.tokenize(texts).split(TEXT_BATCH)
        bar = tqdm(batches, desc=desc, disable=desc is None, unit_scale=TEXT_BATCH, unit="text")
        return torch.cat([self.encode_tokens(batch) for batch in bar])


def load_clip(
    name: str, device: str | torch.device = "cpu", precision: str = "fp32", clip_root: str | Path | None = None
) -> Backbone:
    """Load a CLIP.

    name: an OpenAI name ("ViT-B/16"; taken from `clip_root`/ViT-B-16.pt when that is there, else downloaded by
    open_clip), an open_clip pair ("ViT-B-16:laion2b_s34b_b88k"), "hf-hub:...", the path of a checkpoint file or of a
    folder with its open_clip_config.json, or an embedded model ("demo-student", "demo-reward").
    Raises UserError naming what is missing, unknown or damaged.
    """
    device = torch.device(device)
    model, tokenizer = _load(name, clip_root)
    model = model.float().eval().requires_grad_(False).to(device)
    visual: nn.Module = model.visual  # type: ignore[assignment]
    if any(isinstance(layer, nn.BatchNorm2d) for layer in visual.modules()):
        visual.to(memory_format=torch.channels_last)  # an episode of a ResNet takes 1.3 times less on a CPU
    preprocess = merge_preprocess_dict(PreprocessCfg(), open_clip.get_model_preprocess_cfg(model))
    return Backbone(name, model, tokenizer, preprocess, device, precision)


def _load(name: str, clip_root: str | Path | None) -> tuple[nn.Module, Any]:
    path = Path(name).expanduser()
    if name in EMBEDDED:
        return _load_folder(ASSETS / name)
    if name.startswith("hf-hub:"):
        return _create(name, name), open_clip.get_tokenizer(name)
    if name in OPENAI_ARCHITECTURES:
        file = Path(clip_root).expanduser() / openai_file_name(name) if clip_root else None
        if file is not None and file.is_file():
            return _load_file(file)
        architecture = OPENAI_ARCHITECTURES[name]
        where = f"there is no {file} and " if file else ""
        return _create(f"{architecture}", name, "openai", where), open_clip.get_tokenizer(architecture)
    if path.is_dir():
        return _load_folder(path)
    if path.is_file():
        return _load_file(path)
    architecture, _, tag = name.partition(":")
    architecture = architecture.replace("/", "-")
    if architecture in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(architecture)
        if tag not in tags:
            lacks = f"has no weights '{tag}'" if tag else "needs its weights' name after a colon"
            raise UserError(f"{architecture} {lacks}; open_clip knows {', '.join(tags) or 'none'}")
        return _create(architecture, name, tag), open_clip.get_tokenizer(architecture)
    raise UserError(_unknown(name))


def openai_file_name(name: str) -> str:
    """The file OpenAI's own loader keeps a model in: "ViT-L/14@336px" -> "ViT-L-14-336px.pt"."""
    return name.replace("/", "-").replace("@", "-") + ".pt"


def _unknown(name: str) -> str:
    if "/" in name and name not in OPENAI_ARCHITECTURES and Path(name).suffix:
        return f"no checkpoint file {name}"
    names = [*OPENAI_ARCHITECTURES, *EMBEDDED]
    near = difflib.get_close_matches(name, [*names, *open_clip.list_models()], n=1)
    meant = f"did you mean '{near[0]}'? " if near else ""
    return (
        f"unknown model '{name}'; {meant}Give one of {', '.join(names)}, an open_clip pair such as "
        "ViT-B-16:laion2b_s34b_b88k, hf-hub:..., or the path of a checkpoint"
    )


def _create(architecture: str, name: str, tag: str | None = None, where: str = "") -> nn.Module:
    """An open_clip model with its own download. OpenAI's and some other weights were trained with QuickGELU."""
    config = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    logging.getLogger("open_clip").setLevel(logging.CRITICAL)
    try:
        with _quiet_root_logger():
            return open_clip.create_model(
                architecture, pretrained=tag, force_quick_gelu=bool(config.get("quick_gelu")), weights_only=True
            )
    except Exception as error:  # open_clip and its download libraries raise many kinds
        raise UserError(
            f"{where}{name} could not be downloaded or read ({_reason(error)}); download it on a connected machine and "
            "give its path, or put OpenAI's file into --clip-root"
        ) from error


def _reason(error: Exception) -> str:
    """What a library says, in one line: torch tells which weights do not fit in its second."""
    lines = [line.strip() for line in str(error).splitlines()[:2]]
    return " ".join(lines)[:200] or type(error).__name__


@contextlib.contextmanager
def _quiet_root_logger() -> Any:
    """open_clip logs failures at error level on the root logger before it raises them; one sentence is enough."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _load_folder(folder: Path) -> tuple[nn.Module, Any]:
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
    """A model built from open_clip's JSON config, with weights in open_clip's own key layout."""
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
        with _quiet_root_logger():
            model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**model_cfg)
        model.load_state_dict(state_dict)
    except Exception as error:  # sizes that do not go together fail in many ways
        raise UserError(f"{weights} does not fit the model that {config} describes ({_reason(error)})") from error
    open_clip.model.set_model_preprocess_cfg(model, {**vars(preprocess), "size": model.visual.image_size})
    try:
        with _quiet_root_logger():
            tokenizer = open_clip.get_tokenizer(f"local-dir:{config.parent}")
    except Exception as error:
        reason = _reason(error)
        raise UserError(f"{config.parent} names a tokenizer that cannot be loaded from it ({reason})") from error
    return model, tokenizer


def _load_file(file: Path) -> tuple[nn.Module, Any]:
    """A checkpoint file: with an open_clip_config.json beside it, or in OpenAI's own key layout."""
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
        model.load_state_dict(state_dict)  # once more: building rounds fp32 weights to fp16
    except Exception as error:  # sizes that do not go together fail in many ways
        raise UserError(f"{file} is no complete CLIP checkpoint ({_reason(error)})") from error
    open_clip.model.set_model_preprocess_cfg(model, vars(PreprocessCfg(size=model.visual.image_size)))
    return model, open_clip.SimpleTokenizer(context_length=model.context_length)


def _state_dict(file: Path) -> dict[str, Tensor]:
    checkpoint = read_weights(file)
    if isinstance(checkpoint, dict) and isinstance(checkpoint.get("state_dict"), dict):
        checkpoint = checkpoint["state_dict"]
    if not isinstance(checkpoint, dict):
        raise UserError(f"{file} holds a {type(checkpoint).__name__}, not a state dict")
    tensors = {str(key).removeprefix("module."): value for key, value in checkpoint.items() if torch.is_tensor(value)}
    return {k: v for k, v in tensors.items() if k not in ("input_resolution", "context_length", "vocab_size")}


def read_weights(file: Path) -> Any:
    """What a weight file holds, on the CPU, without running any code in it.

    Reads safetensors, torch.save files (tensors, plain containers and numpy scalars only) and TorchScript archives (as
    a state dict). Raises UserError for a missing, damaged or unsafe file.
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
    except Exception as error:  # damaged bytes fail in many ways
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):  # an import that is refused
            raise UserError(f"{file} holds pickled objects other than tensors, which are not loaded") from error
        raise UserError(f"{file} is damaged or no weight file; download it again") from error


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())
