"""A CLIP as an object that encodes images and texts to unit-length features."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tokenizers.models import WordLevel
from torch import Tensor

from rlcf.clip.text_tower import TextTower, word_tokens
from rlcf.clip.transformer import encode_class_token, pools_class_token
from rlcf.digests import digest_of, digest_of_tensors
from rlcf.errors import UserError
from rlcf.progress import progress_bar
from rlcf.terminal import visible

TEXT_BATCH = 256
"""Number of texts that are encoded together."""
CACHED_PIXELS = 4 * 224 * 224
"""Pixels of the images that are encoded together on a CPU without a graph, few enough that activations stay in the
cache."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision -> what matrix products are computed in."""


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of a precision: none for "fp32", or that of "bf16" or "fp16"."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


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
    def dimension(self) -> int:
        """D, number of entries of a feature."""
        with torch.no_grad():
            return self.encode_tokens(self.tokenize(["a"])).shape[1]

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
