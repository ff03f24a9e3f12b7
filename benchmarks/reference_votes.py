"""The published computation of ZERO and MTA, the methods without gradients."""

from collections.abc import Callable

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.reference import encode_image, most_confident


def answer_without_gradients(
    student: open_clip.CLIP, classes: Tensor, views: Tensor, answer: Callable[[Tensor, Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """ZERO or MTA of one image. answer: `votes` or `mode_logits`. Returns the centre crop's logits, and its answer."""
    scale = student.logit_scale.detach().exp()
    with torch.no_grad():
        features = encode_image(student, views)
        return scale * features[0] @ classes.T, answer(features, classes, scale)


def votes(features: Tensor, classes: Tensor, scale: Tensor, share: float = 0.3) -> Tensor:
    """The votes of the most confident views, and one more for the winner of a tie (ZERO, NeurIPS 2024, algorithm 1).

    features: (V, D) of the student's views; classes: (C, D). Returns (C,).
    """
    logits = scale * features @ classes.T
    order, keep = most_confident(logits, len(logits)), int(share * len(logits))
    counts = torch.bincount(logits[order[:keep]].argmax(dim=-1), minlength=len(classes)).float()
    tied = (counts == counts.max()).nonzero()[:, 0].tolist()
    if len(tied) > 1:
        further = [choice for choice in logits[order[keep:]].argmax(dim=-1).tolist() if choice in tied]
        winner = further[0] if further else tied[int(logits[order[keep], tied].argmax())]
        counts[winner] += 1
    return counts


def mode_logits(features: Tensor, classes: Tensor, scale: Tensor) -> Tensor:
    """The logits of the mode of the views' features (MTA, CVPR 2024, eq. 4 to 7, lambda_y 0.2, lambda_q 4).

    features: (V, D), the centre crop first; classes: (C, D). Returns (C,).
    """
    likely = (scale * features @ classes.T).softmax(dim=-1)
    nearest = torch.cdist(features, features).square().sort(dim=1).values[:, 1 : 1 + int(0.3 * (len(features) - 1))]
    bandwidth, agreement = nearest.mean(dim=1) / 2, likely @ likely.T
    mode, inlierness = features[0], features.new_full((len(features),), 1 / len(features))
    for _ in range(5):
        near = (-(features - mode).square().sum(dim=1) / (2 * bandwidth)).exp()
        for _ in range(5):
            last, inlierness = inlierness, ((near + 4.0 * agreement @ inlierness) / 0.2).softmax(dim=0)
            if (inlierness - last).norm() < 1e-6:
                break
        for _ in range(5):
            weights = inlierness * (-(features - mode).square().sum(dim=1) / (2 * bandwidth)).exp()
            last, mode = mode, F.normalize(weights @ features / weights.sum(), dim=0)
            if (mode - last).norm() < 1e-6:
                break
    return scale * mode @ classes.T
