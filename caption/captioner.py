"""The student: CLIP, the mapper that is tuned, and the language model that speaks."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caption.generate import beam_search
from caption.language_model import LanguageModel
from caption.mapper import Mapper
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError


class Captioner:
    """Tunes the mapper; CLIP and the language model are frozen (RLCF, ICLR 2024).

    trained_with: the CLIP that the mapper was trained with, where that is known; samples: how many at most are adapted
    to at once, each with a mapper of its own.
    """

    def __init__(
        self, clip: Backbone, mapper: Mapper, lm: LanguageModel, trained_with: str = "", samples: int = 1
    ) -> None:
        self.clip, self.lm, self.trained_with = clip, lm, trained_with
        mapper = mapper.to(lm.device).eval().requires_grad_(True)
        self.mappers = nn.ModuleList([mapper, *(copy.deepcopy(mapper) for _ in range(samples - 1))])
        self.feature_width = mapper.feature_width
        self.tuned: dict[str, nn.Parameter] = dict(self.mappers.named_parameters())
        self.buffers: dict[str, Tensor] = dict(self.mappers.named_buffers())

    @torch.no_grad()
    def encode(self, views: Tensor) -> Tensor:
        """What stays frozen of the samples. views: (N, 3, H, W) as made. Returns (N, D) image features, unit length.

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
        """What the language model reads first, (N, P, width).

        features: (N, D) from `encode`, at most as many as there are mappers.
        """
        with self.lm.autocast():
            return torch.cat([mapper(row) for mapper, row in zip(self.mappers, features.split(1), strict=False)])

    def log_likelihood(self, prefix: Tensor, texts: Sequence[Sequence[str]], score_padding: bool = False) -> Tensor:
        """Mean log-likelihood of the tokens of each caption, BOS included.

        prefix: (N, P, width); texts: K captions of each. score_padding: as published, the padding of shorter captions
        counts as text: the mean is over the tokens of the longest of the K. Returns (N, K), nats; with a graph where
        gradients are on.
        """
        ids, mask = self.lm.tokenize([text for captions in texts for text in captions])
        log_likelihood = self.lm.token_log_likelihood(prefix, ids, mask)
        counted = mask.view(len(texts), -1, mask.shape[-1])
        if score_padding:
            counted = counted.amax(dim=1, keepdim=True).expand_as(counted)
        return masked_mean(log_likelihood.view_as(counted), counted)

    def caption(self, prefix: Tensor, beams: int = 5, max_new_tokens: int = 50) -> list[str]:
        """The answers. prefix: (N, P, width). Returns N captions, lower case; the best that say something."""
        found = beam_search(self.lm, prefix, beams, beams, max_new_tokens)
        return [next(filter(None, captions), "").lower() for captions in found]


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row where the mask is not 0. values, mask: (..., L). Returns (...).

    >>> masked_mean(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]])).tolist()
    [2.0]
    """
    return (values * mask).sum(dim=-1) / mask.sum(dim=-1)
