"""Any CLIP, by name or path: one object that encodes images and texts to unit-length features."""

import contextlib
import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from tokenizers.models import WordLevel
from torch import Tensor, nn
from tqdm import tqdm

from rlcf.clip.checkpoints import in_one_line, load_clip_file, load_clip_folder, quiet_root_logger
from rlcf.clip.prompted_text import TextTower, word_tokens
from rlcf.clip.transformer import encode_class_token, pools_class_token
from rlcf.errors import UserError
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
"""The field's names of OpenAI's models -> open_clip's names of their architectures."""

TEXT_BATCH = 256
CACHED_PIXELS = 4 * 224 * 224
"""Pixels of the images that pass a tower together on a CPU when nothing is learnt: few enough that its activations stay
in the cache (16 times 4 images were 1.2 times faster than 64 at once through ViT-B/16)."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context that a model computes in. precision: "fp32", or "bf16" / "fp16" autocast."""
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
        """The text tower driven by embeddings; None where that cannot be (Hugging Face text encoders, CoCa)."""
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

    def encode_image(self, pixels: Tensor, in_parts: bool = True) -> Tensor:
        """Features of images, (N, D), unit length. pixels: (N, 3, *size) from `prepare`.

        in_parts: let few images at a time pass the tower where that is faster. False where an image's features depend
        on the others' (statistics of a batch, layers of several samples), and for a graph.
        """
        few = len(pixels)
        if in_parts and self.device.type == "cpu" and self.precision == "fp32":
            few = max(1, CACHED_PIXELS // (self.size[0] * self.size[1]))
        with self.autocast():
            features = torch.cat([self._image_features(part) for part in pixels.split(few)])
        return F.normalize(features.float(), dim=-1)

    @cached_property
    def _image_features(self) -> Callable[[Tensor], Tensor]:
        visual = self.model.visual
        return partial(encode_class_token, visual) if pools_class_token(visual) else self.model.encode_image

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """(N, context length) ids on the model's device. Raises UserError for a word that a closed vocabulary lacks."""
        tokens = self.tokenizer(list(texts))
        unknown = self._unknown_word
        if unknown is not None and bool((tokens == unknown).any()):
            text = texts[int((tokens == unknown).any(dim=1).nonzero()[0])]
            raise UserError(
                f"{self.name} knows a few words only, not all of '{text}'; use a CLIP with a full vocabulary"
            )
        return tokens.to(self.device)

    @cached_property
    def _unknown_word(self) -> int | None:
        """The id of every word outside of a vocabulary of whole words; None where words are made of pieces."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        closed = isinstance(getattr(getattr(inner, "backend_tokenizer", None), "model", None), WordLevel)
        return getattr(inner, "unk_token_id", None) if closed else None

    def truncated(self, texts: Sequence[str]) -> int:
        """Number of texts that are longer than the context; `tokenize` cuts them, keeping the end-of-text token."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        room = self.tokenize(texts[:1]).shape[1] - getattr(inner, "num_special_tokens_to_add", lambda: 2)()
        long = [text for text in texts if len(text.encode()) >= room]  # a token is at least a byte
        return sum(len(word_tokens(self.tokenizer, text)) > room for text in long)

    def encode_tokens(self, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """Features of tokens, (N, D), unit length, with a graph. tokens: (N, L) from `tokenize`.

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
    folder with its open_clip_config.json, or the name of a model that comes with the project.
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
    shipped = shipped_folder(name)
    if shipped is not None and not path.is_dir():
        return load_clip_folder(shipped)
    if name.startswith("hf-hub:"):
        return _create(name, name), open_clip.get_tokenizer(name)
    if name in OPENAI_ARCHITECTURES:
        file = Path(clip_root).expanduser() / openai_file_name(name) if clip_root else None
        if file is not None and file.is_file():
            return load_clip_file(file)
        architecture = OPENAI_ARCHITECTURES[name]
        where = f"there is no {file} and " if file else ""
        return _create(f"{architecture}", name, "openai", where), open_clip.get_tokenizer(architecture)
    if path.is_dir():
        return load_clip_folder(path)
    if path.is_file():
        return load_clip_file(path)
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
    names = [*OPENAI_ARCHITECTURES, *shipped_names("open_clip_config.json")]
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
        with quiet_root_logger():
            return open_clip.create_model(
                architecture, pretrained=tag, force_quick_gelu=bool(config.get("quick_gelu")), weights_only=True
            )
    except Exception as error:  # open_clip and its download libraries raise many kinds
        raise UserError(
            f"{where}{name} could not be downloaded or read ({in_one_line(error)}); download it on a connected machine "
            "and give its path, or put OpenAI's file into --clip-root"
        ) from error
