"""The student: what is tuned, and how a query's logits over the gallery come about.

Within `with policy:` the parameters that are tuned require gradients; outside it the model is as it was loaded. Of a
query, `encode` gives what stays frozen.
"""

from contextlib import ExitStack
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from rlcf.clip.backbone import Backbone
from rlcf.clip.tuning import image_tower_parameters, requiring_gradients, text_tower_parameters

AnyPolicy = TypeVar("AnyPolicy", bound="_Policy")


class _Policy:
    """Base of both directions: a tower is tuned. gallery: (G, D) features, unit length, which are frozen."""

    def __init__(self, clip: Backbone, gallery: Tensor, tuned: dict[str, nn.Parameter]) -> None:
        self.clip, self.gallery, self.tuned = clip, gallery, tuned
        self._changes = ExitStack()

    def __enter__(self: AnyPolicy) -> AnyPolicy:
        self._changes.enter_context(requiring_gradients(self.tuned.values()))
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()

    def _similarity(self, features: Tensor) -> Tensor:
        return self.clip.logit_scale * features @ self.gallery.T


class ImagePolicy(_Policy):
    """Image to text: tunes the image tower for one image; the texts' features are frozen.

    gallery: (G, D) features of the texts. tune: "encoder" or "norm". A ResNet's BatchNorm layers use their stored
    statistics throughout: those of one image say little.
    """

    def __init__(self, clip: Backbone, gallery: Tensor, tune: str = "encoder") -> None:
        super().__init__(clip, gallery, image_tower_parameters(clip, tune == "norm"))

    def encode(self, image: Tensor) -> Tensor:
        """Pixels as the tower takes them. image: (1, 3, H, W) as made. Returns (1, 3, *size)."""
        return self.clip.prepare(image)

    def starts(self, pixels: Tensor) -> dict[str, Tensor]:
        """Values of tuned parameters that belong to this query alone: there are none."""
        return {}

    @torch.no_grad()
    def zero_shot(self, pixels: Tensor) -> Tensor:
        """The logits of the model as it was loaded, outside of an episode. Returns (1, G), scaled."""
        return self.answer(pixels)

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits with a graph. pixels: (1, 3, *size) from `encode`. Returns (1, G), scaled."""
        return self._similarity(self.clip.encode_image(pixels, in_parts=False))

    @torch.no_grad()
    def answer(self, pixels: Tensor) -> Tensor:
        """The logits of the adapted model. Returns (1, G), scaled."""
        return self._similarity(self.clip.encode_image(pixels))


class Text(NamedTuple):
    """A text that looks for its image.

    tokens: (1, L). Where embeddings are tuned: those that occur, (n, width), and the place of each token among them,
    (L,).
    """

    tokens: Tensor
    embeddings: Tensor = torch.empty(0, 0)
    places: Tensor = torch.empty(0, dtype=torch.long)


class TextPolicy(_Policy):
    """Text to image: tunes the text tower for one text; the images' features are frozen.

    gallery: (G, D) features of the images. tune: "encoder" or "norm". embeddings: also tune the token embeddings and
    the logit scale, as the published runs. Of the embeddings only the rows that a text has are tuned, as a small
    parameter of the policy's own; the others do not matter to it. whole_table: tune all rows nevertheless: weights that
    outlive their query (momentum) have decayed in every row.
    """

    def __init__(
        self,
        clip: Backbone,
        gallery: Tensor,
        tune: str = "encoder",
        embeddings: bool = False,
        whole_table: bool = False,
    ) -> None:
        super().__init__(clip, gallery, text_tower_parameters(clip, tune == "norm", embeddings))
        self.rows: nn.Parameter | None = None  # (context length, width)
        tower = clip.text_tower
        if embeddings and not whole_table and tower is not None:
            table = tower.text.token_embedding.weight
            self.rows = nn.Parameter(table.new_zeros(tower.text.context_length, tower.width))
            self.tuned = {name: self.rows if p is table else p for name, p in self.tuned.items()}

    @torch.no_grad()
    def encode(self, text: str) -> Text:
        """Tokens and, where embeddings are tuned, those that occur. Raises UserError for an unknown word."""
        tokens, tower = self.clip.tokenize([text]), self.clip.text_tower
        if self.rows is None or tower is None:
            return Text(tokens)
        tokens = tokens[:, : tower.needed_length(tokens)]
        ids, places = tokens[0].unique(return_inverse=True)
        return Text(tokens, tower.embed(ids), places.to(self.rows.device))

    def starts(self, text: Text) -> dict[str, Tensor]:
        """Values of tuned parameters that belong to this query alone: the embeddings that it has."""
        if self.rows is None:
            return {}
        start = torch.zeros_like(self.rows)
        start[: len(text.embeddings)] = text.embeddings
        return {name: start for name, parameter in self.tuned.items() if parameter is self.rows}

    @torch.no_grad()
    def zero_shot(self, text: Text) -> Tensor:
        """The logits of the model as it was loaded, outside of an episode. Returns (1, G), scaled."""
        return self._similarity(self.clip.encode_tokens(text.tokens))

    def logits(self, text: Text) -> Tensor:
        """Logits with a graph. Returns (1, G), scaled."""
        embeddings = None if self.rows is None else self.rows[text.places].unsqueeze(0)
        return self._similarity(self.clip.encode_tokens(text.tokens, embeddings))

    @torch.no_grad()
    def answer(self, text: Text) -> Tensor:
        """The logits of the adapted model. Returns (1, G), scaled."""
        return self.logits(text)


Policy = ImagePolicy | TextPolicy
