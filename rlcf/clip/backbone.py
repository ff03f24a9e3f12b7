"""Loads any CLIP by its name or path, as an object that encodes images and texts to unit-length features."""

import contextlib
import difflib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from tokenizers.models import WordLevel
from torch import Tensor, nn

from rlcf.clip.checkpoints import (
    QUICK,
    in_one_line,
    load_clip_file,
    load_clip_folder,
    load_named,
    load_openai,
    load_tokenizer,
    quiet_root_logger,
)
from rlcf.clip.text_tower import TextTower, word_tokens
from rlcf.clip.transformer import encode_class_token, pools_class_token
from rlcf.clip.weights import require_finite
from rlcf.digests import digest_of, digest_of_tensors
from rlcf.errors import UserError
from rlcf.inputs.places import expanded
from rlcf.progress import progress_bar
from rlcf.shipped import shipped_folder, shipped_names
from rlcf.terminal import visible

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

TEXT_BATCH = 256
"""Number of texts that are encoded together."""
CACHED_PIXELS = 4 * 224 * 224
"""Pixels of the images that are encoded together on a CPU without a graph, few enough that activations stay in the
cache. With ViT-B/16, 16 batches of 4 images were 1.2 times faster than one of 64."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of a precision: none for "fp32", or that of "bf16" or "fp16"."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[precision])


@dataclass(frozen=True)
class Backbone:
    """A frozen CLIP in eval mode. Its features are fp32 and of unit length.

    name: as it was given to `load_clip`. model, tokenizer: open_clip's.
    preprocess: open_clip's settings of the model's input, among them size, mean and std (RGB in [0, 1]).
    device: of the model. precision: "fp32", or "bf16" or "fp16" for autocast.
    """

    name: str
    model: Any
    tokenizer: Any
    preprocess: dict[str, Any]
    device: torch.device
    precision: str = "fp32"

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the model's input, pixels."""
        size = self.preprocess["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def logit_scale(self) -> Tensor:
        """The factor of the cosine similarities in the logits, a scalar tensor.

        SigLIP's bias is left out: it is the same for all classes and does not change the softmax.
        """
        return self.model.logit_scale.exp().float().squeeze()

    @cached_property
    def text_tower(self) -> TextTower | None:
        """The text tower as a function of embeddings, or None for Hugging Face text encoders and CoCa."""
        try:
            return TextTower(self.model)
        except TypeError:
            return None

    @cached_property
    def digest(self) -> str:
        """A digest of the weights, of the kinds of layers, and of the settings of the input, 64 characters."""
        layers = [type(layer).__name__ for layer in self.model.modules()]
        return digest_of([digest_of_tensors(self.model.state_dict()), layers, self.preprocess])

    @property
    def centre_view(self) -> Callable[[Image.Image], Tensor]:
        """The model's evaluation transform without its normalisation, from a PIL image to (3, H, W) in [0, 1]."""
        transform = image_transform_v2(PreprocessCfg(**self.preprocess), is_train=False)
        transform.transforms = transform.transforms[:-1]
        return transform

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The autocast context of the model's precision."""
        return autocast(self.device, self.precision)

    def prepare(self, images: Tensor) -> Tensor:
        """Resizes and normalises pixels for this model, on its device.

        images: (N, 3, H, W) of any size, uint8 in 0..255 or float in [0, 1]. They are resized as the published code
        does it, bicubic with align_corners. Returns (N, 3, *size).
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
        """The features of images.

        pixels: (N, 3, *size) from `prepare`. in_parts: encode few images at a time on a CPU, which is faster; must be
        False when a graph is wanted, and when images of the batch share statistics or layers.
        Returns (N, D), unit length.
        """
        few = len(pixels)
        if in_parts and self.device.type == "cpu" and self.precision == "fp32":
            few = max(1, CACHED_PIXELS // (self.size[0] * self.size[1]))
        with self.autocast():
            features = torch.cat([self._image_features(part) for part in pixels.split(few)])
        return F.normalize(features.float(), dim=-1)

    @cached_property
    def _image_features(self) -> Callable[[Tensor], Tensor]:
        """The image tower as a function from (N, 3, *size) to (N, D), not normalised."""
        visual = self.model.visual
        return partial(encode_class_token, visual) if pools_class_token(visual) else self.model.encode_image

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """The token ids of texts, (N, context length), on the CPU.

        Raises UserError naming a text with a word that is not in the vocabulary, if that holds whole words only, or
        with half a character, and for a tokenizer of another vocabulary.
        """
        torn = next((text for text in texts if text != text.encode(errors="replace").decode()), None)
        if torn is not None:
            raise UserError(f"'{visible(torn)}' holds half a character (a lone surrogate); take it out")
        tokens = self.tokenizer(list(texts))
        known = getattr(getattr(self.model, "text", self.model), "vocab_size", 0)
        if known and int(tokens.max()) >= known:
            raise UserError(f"the tokenizer of {self.name} is another model's: it has more than its {known} tokens")
        unknown = self._unknown_word
        if unknown is not None and bool((tokens == unknown).any()):
            text = texts[int((tokens == unknown).any(dim=1).nonzero()[0])]
            raise UserError(
                f"{self.name} knows a few words only, not all of '{text}'; use a CLIP with a full vocabulary"
            )
        return tokens

    @cached_property
    def _unknown_word(self) -> int | None:
        """The id of words that are not in the vocabulary, or None for a tokenizer that splits words into pieces."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        closed = isinstance(getattr(getattr(inner, "backend_tokenizer", None), "model", None), WordLevel)
        return getattr(inner, "unk_token_id", None) if closed else None

    def truncated(self, texts: Sequence[str]) -> int:
        """Number of texts that are longer than the context. `tokenize` cuts them and keeps the end-of-text token."""
        inner = getattr(self.tokenizer, "tokenizer", None)
        room = self.tokenize(texts[:1]).shape[1] - getattr(inner, "num_special_tokens_to_add", lambda: 2)()
        # A token is at least a byte, so only texts of that many bytes need to be counted in tokens.
        long = [text for text in texts if len(text.encode(errors="replace")) >= room]
        return sum(len(word_tokens(self.tokenizer, text)) > room for text in long)

    def encode_tokens(self, tokens: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """The features of tokens, with a graph.

        tokens: (N, L) from `tokenize`. embeddings: (N, L, width) to use in place of the tokens' own; only for a model
        with a `text_tower`. Returns (N, D), unit length.
        """
        tower = self.text_tower
        with self.autocast():
            if tower is None:
                features = self.model.encode_text(tokens.to(self.device))
            else:
                features = tower(tower.embed(tokens) if embeddings is None else embeddings, tokens)
        return F.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str], desc: str | None = None) -> Tensor:
        """The features of texts, (N, D), unit length, without a graph. desc: label of a progress bar, None for no bar.

        Raises UserError as `tokenize`.
        """
        features = []
        with progress_bar(desc=desc, disable=desc is None, total=len(texts), unit="text") as progress:
            for batch in self.tokenize(texts).split(TEXT_BATCH):
                features.append(self.encode_tokens(batch))
                progress.update(len(batch))
        return torch.cat(features)


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
    try:
        with quiet_root_logger():
            model = open_clip.create_model(
                architecture, pretrained=tag, force_quick_gelu=bool(config.get("quick_gelu")), weights_only=True
            )
    except Exception as error:  # open_clip and its download libraries raise many kinds
        where = f"there is no {missing} and " if missing else ""
        get = "download it on a connected machine and give the path of its folder"
        if name in OPENAI_ARCHITECTURES:
            file = openai_file_name(name)
            get = f"'rlcf-data get {file}' on a connected machine downloads it; put it into --clip-root"
        raise UserError(f"{where}{name} could not be downloaded or read ({in_one_line(error)}); {get}") from error
    require_finite(name, model.state_dict())
    return model
