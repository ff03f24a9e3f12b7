"""A look with a model: are labels and images shifted against each other? Nothing else of rlcf.data loads torch."""

from collections.abc import Sequence
from pathlib import Path

from rlcf.data.names import offset_of

CLASSES, PER_CLASS = 100, 2
"""Classes that are looked at, spread over all of them, and images of each."""


def look(
    samples: Sequence[tuple[Path, int]], classnames: Sequence[str], clip: str, clip_root: Path, prompt: str
) -> str:
    """Classifies a few images by a CLIP, zero-shot, and tells what it found in a sentence; "wrong: ..." if it is bad.

    samples: image files and labels; classnames: the name of each label; clip: as `--student`. prompt: "a photo of a".
    Raises UserError as `load_clip`, and for an image that cannot be read.
    """
    import torch

    from rlcf.clip.loading import load_clip
    from rlcf.clip.prompted_text import prompt_text
    from rlcf.run.images import encode_images

    chosen = few(samples)
    model = load_clip(clip, "cuda" if torch.cuda.is_available() else "cpu", clip_root=clip_root)
    texts = model.encode_text([prompt_text(prompt, name, "end") for name in classnames], desc="class names")
    (images,) = encode_images([model], [file for file, _ in chosen], workers=0, desc="a few images")
    answers = (images @ texts.T).argmax(dim=1).tolist()
    return verdict([label for _, label in chosen], answers, len(classnames), clip)


def few(samples: Sequence[tuple[Path, int]]) -> list[tuple[Path, int]]:
    """The samples that are looked at: the first `PER_CLASS` of each of `CLASSES` classes."""
    of: dict[int, list[tuple[Path, int]]] = {}
    for file, label in samples:
        of.setdefault(label, []).append((file, label))
    labels = sorted(of)
    step = max(1, -(-len(labels) // CLASSES))
    return [sample for label in labels[::step] for sample in of[label][:PER_CLASS]]


def verdict(labels: Sequence[int], answers: Sequence[int], classes: int, clip: str) -> str:
    """What a model's answers say of the labels.

    >>> verdict([0, 1, 2, 3], [1, 2, 3, 0], 4, "M")
    'wrong: M finds 0% of 4 images in the class of their label (chance: 25%); 75% if labels are shifted by +1'
    """
    right = sum(label == answer for label, answer in zip(labels, answers, strict=True)) / len(labels)
    told = f"{clip} finds {right:.0%} of {len(labels)} images in the class of their label (chance: {1 / classes:.0%})"
    offset, share = offset_of(zip(labels, answers, strict=True))
    if offset and share > 2 * right and share >= max(0.3, 2 / classes):
        return f"wrong: {told}; {share:.0%} if labels are shifted by {offset:+d}"
    if right < 3 / classes and classes > 3:
        return f"wrong: {told}: the labels do not belong to the images, or this CLIP knows nothing of them"
    return told
