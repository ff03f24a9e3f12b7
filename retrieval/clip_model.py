"""The student: what is tuned, and how a query's logits over the gallery come about."""

import torch
from torch import Tensor, nn

from rlcf.backbone import Backbone
from rlcf.prompted_text import TextTower
from rlcf.tuning import tune_image_tower, tune_text_tower


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

    def encode(self, text: str) -> Tensor:
        """What stays frozen of a sample. Returns its (1, L) tokens."""
        return self.clip.tokenize([text])

    def starts(self, tokens: Tensor) -> dict[str, Tensor]:
        """Where the parameters begin that belong to this sample alone. tokens: (1, L) from `encode`."""
        if self.rows is None:
            return {}
        ids, _ = self._occurring(tokens)
        start = torch.zeros_like(self.rows)
        start[: len(ids)] = self._tower.embed(ids).detach()
        return {name: start for name, parameter in self.tuned.items() if parameter is self.rows}

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens: (1, L) from `encode`. Returns (1, I), scaled."""
        embeddings = None
        if self.rows is not None:
            _, places = self._occurring(tokens)
            embeddings = self.rows[places].unsqueeze(0)
            tokens = tokens[:, : len(places)]
        return self.clip.logit_scale * self.clip.encode_tokens(tokens, embeddings) @ self.image_features.T

    @property
    def _tower(self) -> TextTower:
        assert self.clip.text_tower is not None
        return self.clip.text_tower

    def _occurring(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The ids that occur where the text's feature depends on them, and which of them each place has."""
        return tokens[0, : self._tower.needed_length(tokens)].unique(return_inverse=True)


Policy = ImagePolicy | TextPolicy
