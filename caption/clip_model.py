"""The student: CLIP, the mapper that is tuned, and the language model that speaks."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from caption.generate import beam_search, nucleus_sampling
from caption.language_model import LanguageModel
from caption.mapper import Mapper
from rlcf.clip.backbone import Backbone
from rlcf.clip.tuning import requiring_gradients
from rlcf.errors import UserError


class MapperPolicy:
    """Tunes the mapper; CLIP and the language model are frozen (RLCF, ICLR 2024).

    Within `with policy:` the mappers require gradients; outside they do not. trained_with: the CLIP that the mapper was
    trained with, where that is known; samples: how many at most are adapted to at once, each with a mapper of its own.
    """

    def __init__(
        self, clip: Backbone, mapper: Mapper, lm: LanguageModel, trained_with: str = "", samples: int = 1
    ) -> None:
        self.clip, self.lm, self.trained_with = clip, lm, trained_with
        self.mappers = nn.ModuleList([mapper, *(copy.deepcopy(mapper) for _ in range(samples - 1))])
        self.feature_width = mapper.feature_width
        self.tuned: dict[str, nn.Parameter] = dict(self.mappers.named_parameters())
        self.buffers: dict[str, Tensor] = dict(self.mappers.named_buffers())
        self._changes = ExitStack()

    def __enter__(self) -> "MapperPolicy":
        self._changes.enter_context(requiring_gradients(self.tuned.values()))
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.close()

    def own(self, sample: int) -> list[Tensor]:
        """Returns the mapper's parameters of one sample. sample: its place among the N."""
        mapper = self.mappers[sample]
        return [tensor.detach() for tensor in (*mapper.parameters(), *mapper.buffers())]

    @torch.no_grad()
    def encode(self, views: Tensor) -> Tensor:
        """The samples' image features, which stay frozen. views: (N, 3, H, W) as made. Returns (N, D), unit length.

        Raises UserError when they are not as wide as those the mapper was trained with.
        """
        features = self.clip.encode_image(self.clip.prepare(views))
        if features.shape[-1] != self.feature_width:
            known = f" ({self.trained_with})" if self.trained_with else ""
            raise UserError(
                f"the features of {self.clip.name} are {features.shape[-1]} wide, the mapper takes "
                f"{self.feature_width}; give the --student that the captioner was trained with{known}"
            )
        return features

    def prefix(self, features: Tensor) -> Tensor:
        """The embeddings that the language model reads first, with a graph.

        features: (N, D) from `encode`, at most as many as there are mappers. Returns (N, P, width).
        """
        with self.lm.autocast():
            return torch.cat([mapper(row) for mapper, row in zip(self.mappers, features.split(1), strict=False)])

    @torch.no_grad()
    def zero_shot(self, features: Tensor) -> Tensor:
        """The prefix of the model as it was loaded, outside of an episode. features: (N, D). Returns (N, P, width)."""
        with self.lm.autocast():
            return torch.cat([self.mappers[0](row) for row in features.split(1)])

    @torch.no_grad()
    def answer(self, features: Tensor) -> Tensor:
        """The prefix of the adapted model. features: (N, D). Returns (N, P, width)."""
        return self.prefix(features)

    def sample(
        self,
        prefix: Tensor,
        k: int,
        top_p: float | None = None,
        seeds: Sequence[tuple[int, ...]] = (),
        max_new_tokens: int = 50,
    ) -> list[list[str]]:
        """K captions of each image, to learn from: the best of a beam search, or draws.

        prefix: (N, P, width); top_p: probability of the nucleus that is drawn from, None for beam search; seeds: of
        each image's draws. Returns N lists of K captions.
        """
        prefix = prefix.detach()
        if top_p is None:
            return beam_search(self.lm, prefix, k, k, max_new_tokens)
        return [
            nucleus_sampling(self.lm, own, k, top_p, seed, max_new_tokens)
            for own, seed in zip(prefix.split(1), seeds, strict=True)
        ]

    def log_likelihood(
        self, prefix: Tensor, texts: Sequence[Sequence[str]], score_padding: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of the tokens of each caption, BOS included; with a graph where the prefix has one.

        prefix: (N, P, width); texts: K captions of each. score_padding: as published, the padding of shorter captions
        counts as text, up to the longest of the K. Returns (N, K, L), nats, and (N, K, L), 1 for the tokens that count.
        """
        ids, mask = self.lm.tokenize([text for captions in texts for text in captions])
        log_likelihood = self.lm.token_log_likelihood(prefix, ids, mask)
        counted = mask.view(len(texts), -1, mask.shape[-1])
        if score_padding:
            counted = counted.amax(dim=1, keepdim=True).expand_as(counted)
        return log_likelihood.view_as(counted), counted

    def caption(self, prefix: Tensor, beams: int = 5, max_new_tokens: int = 50) -> list[str]:
        """The final captions, lower case: of each beam search the best one that is not empty.

        prefix: (N, P, width). Returns N captions.
        """
        found = beam_search(self.lm, prefix, beams, beams, max_new_tokens)
        return [next(filter(None, captions), "").lower() for captions in found]
