"""Scores of captions by a CLIP: CLIPScore against images, RefCLIPScore against references too."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clipscore.captions import PREFIX, Captions
from clipscore.scores import Scores
from rlcf.adapt.rewards import clip_score
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError
from rlcf.run.images import encode_images


def count_cut(captions: Captions, clip: Backbone, prefix: str = PREFIX) -> int:
    """Number of captions and references that are longer than the CLIP's context; it reads their beginning alone.

    Raises UserError for a word that the CLIP does not know, which takes a moment; the scores take longer.
    """
    groups = captions.references or []
    texts = [prefix + text for text in (*captions.candidates, *(text for group in groups for text in group))]
    clip.tokenize(texts)
    return clip.truncated(texts)


def clip_scores(
    captions: Captions, clip: Backbone, prefix: str = PREFIX, workers: int = 2, published: bool = False
) -> Scores:
    """CLIPScore of each caption with its image, and RefCLIPScore where there are references; their means.

    A caption without words has 0. published: read images as the published code does. Raises UserError for an image that
    cannot be read.
    """
    if captions.images is None:
        raise UserError("CLIPScore compares captions with images; give match_captions their folder")
    (images,) = encode_images([clip], captions.images, workers, published=published)
    texts = clip.encode_text([prefix + text for text in captions.candidates], desc="captions")
    values = {"CLIPScore": clip_score(images, texts)}
    values["CLIPScore"][captions.empty] = 0.0
    if captions.references is not None:
        flat = [prefix + text for group in captions.references for text in group]
        groups = clip.encode_text(flat, desc="references").split([len(group) for group in captions.references])
        values["RefCLIPScore"] = ref_clip_score(values["CLIPScore"], texts, groups)
        values["RefCLIPScore"][captions.empty] = 0.0
    return {name: (value.mean().item(), value.tolist()) for name, value in values.items()}


def ref_clip_score(scores: Tensor, texts: Tensor, references: Sequence[Tensor]) -> Tensor:
    """RefCLIPScore = harmonic mean of CLIPScore and max(best cos(candidate, reference), 0) (Hessel et al., eq. 2).

    scores: (N,) CLIPScores; texts: (N, D) candidates, unit length; references: N times (R_i, D), unit length.
    Returns (N,).

    >>> ref_clip_score(torch.tensor([0.5]), torch.tensor([[1.0, 0.0]]), [torch.tensor([[0.0, 1.0], [1.0, 0.0]])])
    tensor([0.6667])
    """
    best = torch.stack([(group @ text).max() for text, group in zip(texts, references, strict=True)]).clamp(min=0)
    total = scores + best
    return torch.where(total > 0, 2 * scores * best / total, 0)
