"""Scores of captions: against references (BLEU, METEOR, ROUGE-L, CIDEr, SPICE) and against images (CLIPScore)."""

from collections.abc import Sequence

import torch
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from torch import Tensor

from clipscore import java
from clipscore.captions import Captions
from clipscore.tokenizer import tokenize
from rlcf.adapt.rewards import clip_score
from rlcf.clip.backbone import Backbone
from rlcf.run.images import encode_images

PREFIX = "A photo depicts "
"""The words before each caption (Hessel et al., EMNLP 2021, section 3)."""

Scores = dict[str, tuple[float, list[float]]]
"""Metric -> its value for the corpus, and for each caption."""


def reference_scores(
    candidates: Sequence[str], references: Sequence[Sequence[str]], with_java: bool, spice: bool = False
) -> Scores:
    """The benchmarks' metrics: BLEU, METEOR, ROUGE-L and SPICE in 0..1, CIDEr in 0..10; papers print 100 times that.

    candidates: one caption an image; references: one or more each. with_java: split words by the PTB tokenizer and
    give METEOR, and SPICE if asked for; else words are split by `clipscore.tokenizer` and both are left out.
    Raises UserError when a Java program fails.
    """
    split = java.tokenize if with_java else lambda captions: [tokenize(caption) for caption in captions]
    tokenised, flat = split(candidates), iter(split([caption for group in references for caption in group]))
    groups = [[next(flat) for _ in group] for group in references]

    given, wanted = {i: [text] for i, text in enumerate(tokenised)}, dict(enumerate(groups))
    corpus, each = Bleu(4).compute_score(wanted, given, verbose=0)
    scores: Scores = {f"BLEU-{n}": (corpus[n - 1], each[n - 1]) for n in range(1, 5)}
    if with_java:
        scores["METEOR"] = java.meteor(tokenised, groups)
    scores["ROUGE-L"] = Rouge().compute_score(wanted, given)
    worded = any(text for group in groups for text in group)  # without a word CIDEr divides by none
    scores["CIDEr"] = Cider().compute_score(wanted, given) if worded else (0.0, [0.0] * len(groups))
    if with_java and spice:
        scores["SPICE"] = java.spice(tokenised, groups)
    return {name: (float(whole), [float(value) for value in parts]) for name, (whole, parts) in scores.items()}


def clip_scores(captions: Captions, clip: Backbone, prefix: str = PREFIX, workers: int = 2) -> Scores:
    """CLIPScore of each caption with its image, and RefCLIPScore where there are references; their means.

    Raises UserError for an image that cannot be read.
    """
    (images,) = encode_images([clip], captions.images, workers)
    texts = clip.encode_text([prefix + text for text in captions.candidates], desc="captions")
    values = {"CLIPScore": clip_score(images, texts)}
    if captions.references is not None:
        flat = [prefix + text for group in captions.references for text in group]
        groups = clip.encode_text(flat, desc="references").split([len(group) for group in captions.references])
        values["RefCLIPScore"] = ref_clip_score(values["CLIPScore"], texts, groups)
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
