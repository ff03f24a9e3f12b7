"""The straightforward loops, written for clarity, that every fast path is measured against.

They adapt raw open_clip models as the papers' algorithms read: the zero-shot answer, the steps, the adapted answer. All
77 tokens, a graph over all views, everything computed again at every step (the views' features, the class features, the
reward model's view of the images), plain AdamW, weights copied before and loaded back after each sample. They share
nothing with the rest of the project. Images are normalised pixels, (N, 3, H, W); classes and galleries are unit-length
features, (C, D) or (G, D), frozen; models are in eval mode. Loss and logits are fp32.
"""

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision import transforms


def adapt_image_encoder(
    student: open_clip.CLIP,
    reward: open_clip.CLIP,
    student_classes: Tensor,
    reward_classes: Tensor,
    views: Tensor,
    reward_views: Tensor,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    keep: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    """RLCF of the image tower on one image (ICLR 2024, eq. 3 and 4).

    views, reward_views: the same V views as each model takes them, the centre crop first; keep: number of views that
    are learnt from, those of the lowest entropy. Returns the centre crop's logits (C,) before and after.
    """
    scale = student.logit_scale.detach().exp()
    start = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        before = scale * encode_image(student, views[:1]) @ student_classes.T
    with tuning(student, student.visual.parameters()) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for step in range(steps):
            logits = scale * encode_image(student, views) @ student_classes.T  # (V, C)
            if step == 0:
                kept = most_confident(logits.detach(), keep)
            loss = reinforce(logits[kept], see(reward, reward_views[kept]), reward_classes, k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = scale * encode_image(student, views[:1]) @ student_classes.T
    student.load_state_dict(start)
    return before[0], after[0]


def adapt_prompt(
    student: open_clip.CLIP,
    reward: open_clip.CLIP | None,
    tokens: Tensor,
    reward_classes: Tensor | None,
    context: Tensor,
    views: Tensor,
    reward_views: Tensor | None,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    keep: int,
    k: int = 3,
    objective: str = "rlcf",
) -> tuple[Tensor, Tensor]:
    """RLCF (ICLR 2024, eq. 3 and 4) or TPT (NeurIPS 2022, eq. 2 and 3) of the prompts' context on one image.

    tokens: (C, 77) of "[SOS] context name . [EOT]"; context: (n_ctx, width) starting vectors, at positions 1 to n_ctx.
    objective: "rlcf", or "tpt", which has no reward model: None for all of its. Else as `adapt_image_encoder`.
    """
    scale, embeddings = student.logit_scale.detach().exp(), student.token_embedding(tokens).detach()
    context = context.detach().clone()

    def class_features() -> Tensor:
        shared = context.expand(len(tokens), -1, -1)
        prompts = torch.cat([embeddings[:, :1], shared, embeddings[:, 1 + len(context) :]], dim=1)
        return encode_prompts(student, prompts, tokens)

    with torch.no_grad():
        before = scale * encode_image(student, views[:1]) @ class_features().T
    with tuning(student, [context]) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for step in range(steps):
            with torch.no_grad():
                features = encode_image(student, views)
            logits = scale * features @ class_features().T  # (V, C)
            if step == 0:
                kept = most_confident(logits.detach(), keep)
            if objective == "rlcf":
                loss = reinforce(logits[kept], see(reward, reward_views[kept]), reward_classes, k)
            else:
                loss = entropy(mean_prediction(logits[kept]))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = scale * encode_image(student, views[:1]) @ class_features().T
    return before[0], after[0]


def adapt_image_query(
    student: open_clip.CLIP,
    reward: open_clip.CLIP,
    gallery: Tensor,
    reward_gallery: Tensor,
    pixels: Tensor,
    reward_pixels: Tensor,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    k: int,
) -> tuple[Tensor, Tensor]:
    """RLCF of the image tower on one image that looks for its texts.

    gallery, reward_gallery: features of the G texts; pixels, reward_pixels: (1, 3, H, W), the same image as each model
    takes it. Returns its logits (G,) before and after.
    """
    scale = student.logit_scale.detach().exp()
    start = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        before = scale * encode_image(student, pixels) @ gallery.T
    with tuning(student, student.visual.parameters()) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for _ in range(steps):
            logits = scale * encode_image(student, pixels) @ gallery.T  # (1, G)
            loss = reinforce(logits, see(reward, reward_pixels), reward_gallery, k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = scale * encode_image(student, pixels) @ gallery.T
    student.load_state_dict(start)
    return before[0], after[0]


def adapt_text_query(
    student: open_clip.CLIP,
    reward: open_clip.CLIP,
    gallery: Tensor,
    reward_gallery: Tensor,
    tokens: Tensor,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    k: int,
) -> tuple[Tensor, Tensor]:
    """RLCF of the text tower, its token embeddings and the logit scale, on one text that looks for its image.

    gallery, reward_gallery: features of the G images; tokens: (1, 77), the same for both models. Returns the text's
    logits (G,) before and after.
    """
    text_tower = [weight for name, weight in student.named_parameters() if not name.startswith("visual.")]
    start = copy.deepcopy(student.state_dict())
    with torch.no_grad():
        before = student.logit_scale.exp() * encode_text(student, tokens) @ gallery.T
    with tuning(student, text_tower) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for _ in range(steps):
            logits = student.logit_scale.exp() * encode_text(student, tokens) @ gallery.T  # (1, G)
            with torch.no_grad():
                seen = encode_text(reward, tokens)
            loss = reinforce(logits, seen, reward_gallery, k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = student.logit_scale.exp() * encode_text(student, tokens) @ gallery.T
    student.load_state_dict(start)
    return before[0], after[0]


def make_views(image_file: Path, count: int, size: int, mean: Iterable[float], std: Iterable[float]) -> Tensor:
    """The centre crop and count - 1 random crops of an image file, by torchvision from Pillow images.

    Returns (count, 3, size, size), normalised by mean and std.
    """
    with Image.open(image_file) as opened:
        image = opened.convert("RGB")
    to_pixels = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    centre = transforms.Compose(
        [transforms.Resize(size, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size), *to_pixels]
    )
    crop = transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *to_pixels])
    return torch.stack([centre(image), *(crop(image) for _ in range(count - 1))])


def encode_image(model: open_clip.CLIP, pixels: Tensor) -> Tensor:
    """(N, D), unit length."""
    return F.normalize(model.encode_image(pixels), dim=-1)


def encode_text(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """(N, D), unit length."""
    return F.normalize(model.encode_text(tokens), dim=-1)


def encode_prompts(model: open_clip.CLIP, embeddings: Tensor, tokens: Tensor) -> Tensor:
    """The text tower entered at its token embeddings. embeddings: (C, 77, width). Returns (C, D), unit length."""
    x = model.transformer(embeddings + model.positional_embedding, attn_mask=model.attn_mask)
    end_of_text = tokens.argmax(dim=-1)  # the highest id
    x = model.ln_final(x)[torch.arange(len(x)), end_of_text]
    return F.normalize(x @ model.text_projection, dim=-1)


def see(reward: open_clip.CLIP, pixels: Tensor) -> Tensor:
    """The images as the reward model sees them: (N, D), unit length, without a graph."""
    with torch.no_grad():
        return encode_image(reward, pixels)


def reinforce(logits: Tensor, seen: Tensor, reward_answers: Tensor, k: int) -> Tensor:
    """Mean of advantage * negative log-likelihood over the K most likely answers of each row (eq. 3 and 4).

    logits: (V, C); seen: (V, D) what is answered, reward_answers: (C, D) the answers, as the reward model sees them.
    """
    answers = logits.topk(k, dim=-1).indices  # (V, K)
    cosine = (seen.unsqueeze(1) * reward_answers[answers]).sum(dim=-1)
    score = 2.5 * cosine.clamp(min=0)  # CLIPScore
    advantage = score - score.mean(dim=-1, keepdim=True)
    negative_log_likelihood = -logits.log_softmax(dim=-1).gather(-1, answers)
    return (advantage * negative_log_likelihood).mean()


def entropy(log_probabilities: Tensor) -> Tensor:
    """Nats, over the last dimension."""
    return -(log_probabilities.exp() * log_probabilities).sum(dim=-1)


def mean_prediction(logits: Tensor) -> Tensor:
    """Log-probabilities of the mean over the views. logits: (V, C). Returns (C,)."""
    return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(logits))


def most_confident(logits: Tensor, keep: int) -> Tensor:
    """The rows of the lowest entropy. logits: (V, C). Returns (keep,)."""
    return entropy(logits.log_softmax(dim=-1)).argsort()[:keep]


def adamw(tuned: list[Tensor], lr: float, weight_decay: float, eps: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(tuned, lr=lr, weight_decay=weight_decay, eps=eps, foreach=False, fused=False)


@contextmanager
def tuning(student: open_clip.CLIP, weights: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Within it these weights, and none else of the student's, require gradients."""
    required = [(weight, weight.requires_grad) for weight in student.parameters()]
    tuned = list(weights)
    student.requires_grad_(False)
    for weight in tuned:
        weight.requires_grad_(True)
    yield tuned
    for weight, requires_grad in required:
        weight.requires_grad_(requires_grad)
        weight.grad = None
