"""Scores of captions against references: BLEU, METEOR, ROUGE-L, CIDEr and SPICE. They need no CLIP."""

from collections.abc import Sequence

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from clipscore import java
from clipscore.tokenizer import tokenize

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
