"""The student: what is tuned, and how a query's logits over the gallery come about."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlcf.clip.backbone import Backbone
from rlcf.clip.prompted_text import TextTower
from rlcf.clip.tuning import tune_image_tower, tune_text_tower


class ImagePolicy:
    """Image to text: tunes the image tower for one image; the texts' features are frozen.

    text_features: (T, D), unit length. tune: "encoder" or "norm". The statistics of a ResNet's BatchNorm layers stay
    the stored ones: one image has none.
    """

    def __init__(self, clip: Backbone, text_features: Tensor, tune: str = "encoder") -> None:
        self.clip, self.text_features = clip, text_features
        self.tuned = tune_image_tower(clip, tune == "norm")

    def encode(self, image: Tensor) -> Tensor:
        """What stays frozen of a sample. image: (1, 3, H, W) as read. Returns (1, 3, *size) pixels."""
        return self.clip.prepare(image)

    def starts(self, pixels: Tensor) -> dict[str, Tensor]:
        """Where the parameters begin that belong to this sample alone: there are none."""
        return {}

    def logits(self, pixels: Tensor) -> Tensor:
        """pixels: (1, 3, *size) from `encode`. Returns (1, T), scaled."""
        return self.clip.logit_scale * self.clip.encode_image(pixels) @ self.text_features.T


class TextPolicy:
    """Text to image: tunes the text tower for one text; the images' features are frozen.

    image_features: (I, D), unit length. tune: "encoder" or "norm". embeddings: also tune the token embeddings and the
    logit scale, as the published runs; of the embeddings only the rows that a text has, since no other one matters to
    it. whole_table: tune all rows nevertheless: weights that outlive their sample (momentum) have decayed in every row.
    """

    def __init__(
        self,
        clip: Backbone,
        image_features: Tensor,
        tune: str = "encoder",
        embeddings: bool = False,
        whole_table: bool = False,
    ) -> None:
        self.clip, self.image_features = clip, image_features
        self.tuned = tune_text_tower(clip, tune == "norm", embeddings)
        self.rows: nn.Parameter | None = None
        if embeddings and not whole_table and clip.text_tower is not None:
            tower = clip.text_tower
            table = tower.text.token_embedding.weight.requires_grad_(False)
            self.rows = nn.Parameter(table.new_zeros(tower.text.context_length, tower.width))
            self.tuned = {name: self.rows if p is table else p for name, p in self.tuned.items()}

    def encode(self, text: str) -> "Text":
        """What stays frozen of a sample."""
        tokens = self.clip.tokenize([text])
        if self.rows is None:
            return Text(tokens)
        tower = self._tower
        tokens = tokens[:, : tower.needed_length(tokens)]
        ids, places = tokens[0].unique(return_inverse=True)
        return Text(tokens, tower.embed(ids).detach(), places)

    def starts(self, text: "Text") -> dict[str, Tensor]:
        """Where the parameters begin that belong to this sample alone."""
        if self.rows is None:
            return {}
        start = torch.zeros_like(self.rows)
        start[: len(text.embeddings)] = text.embeddings
        return {name: start for name, parameter in self.tuned.items() if parameter is self.rows}

    def logits(self, text: "Text") -> Tensor:
        """Returns (1, I), scaled."""
        embeddings = None if self.rows is None else self.rows[text.places].unsqueeze(0)
        return self.clip.logit_scale * self.clip.encode_tokens(text.tokens, embeddings) @ self.image_features.T

    @property
    def _tower(self) -> TextTower:
        assert self.clip.text_tower is not None
        return self.clip.text_tower


class Text(NamedTuple):
    """A text that looks for its image.

    tokens: (1, L). Where embeddings are tuned: those that occur, (n, width), and which of them each place has, (L,).
    """

    tokens: Tensor
    embeddings: Tensor = torch.empty(0, 0)
    places: Tensor = torch.empty(0, dtype=torch.long)


Policy = ImagePolicy | TextPolicy
