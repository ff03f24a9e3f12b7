"""The published computation, and no more: what every fast path is measured against.

What the authors' code computes for a sample, on raw open_clip models. Image encoder: the first step's graph holds all
views, that of later steps the kept ones. Prompt: the text tower runs over every class's 77 tokens with a graph at each
step, the image tower without one over all views first, then over the kept ones. The reward model sees a sample once.
There is no pass for the zero-shot answer: it is read off the first step. AdamW works tensor by tensor; the weights are
loaded back after each sample. Captioning: each step searches its captions anew, from the prefix on.

Images are normalised pixels, (N, 3, H, W); classes and galleries are unit-length features, (C, D) or (G, D), computed
once a run; models are in eval mode. It shares nothing with the rest of the project.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

Weights = Mapping[str, Tensor]


def adapt_image_encoder(
    student: open_clip.CLIP,
    reward: open_clip.CLIP,
    student_classes: Tensor,
    reward_classes: Tensor,
    views: Tensor,
    reward_views: Tensor,
    start: Weights,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    keep: int,
    k: int,
) -> tuple[Tensor, Tensor]:
    """RLCF of the image tower on one image (ICLR 2024, eq. 3 and 4).

    views, reward_views: the same V views as each model takes them, the centre crop first; start: the student's weights,
    which are loaded back; keep: number of views that are learnt from, those of the lowest entropy. Returns the centre
    crop's logits (C,) before and after.
    """
    scale = student.logit_scale.detach().exp()
    with tuning(student, student.visual.parameters()) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for step in range(steps):
            logits = scale * encode_image(student, views) @ student_classes.T  # (V, C), then (keep, C)
            if step == 0:
                before, kept = logits[0].detach(), most_confident(logits.detach(), keep)
                centre, views, logits = views[:1], views[kept], logits[kept]
                seen = see(reward, reward_views[kept])
            loss = reinforce(logits, seen, reward_classes, k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = scale * encode_image(student, centre) @ student_classes.T
    student.load_state_dict(start)
    return before, after[0]


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
    dispersion_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """RLCF (ICLR 2024, eq. 3 and 4), TPT (NeurIPS 2022, eq. 2 and 3) or C-TPT (ICLR 2024, eq. 5) on one image.

    tokens: (C, 77) of "[SOS] context name . [EOT]"; context: (n_ctx, width) starting vectors, at positions 1 to n_ctx.
    objective: "rlcf", "tpt" or "ctpt"; the last two have no reward model: None for all of its. Else as
    `adapt_image_encoder`.
    """
    scale, embeddings = student.logit_scale.detach().exp(), student.token_embedding(tokens).detach()
    context = context.detach().clone()

    def class_features() -> Tensor:
        shared = context.expand(len(tokens), -1, -1)
        prompts = torch.cat([embeddings[:, :1], shared, embeddings[:, 1 + len(context) :]], dim=1)
        return encode_prompts(student, prompts, tokens)

    with tuning(student, [context]) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for step in range(steps):
            with torch.no_grad():
                features = encode_image(student, views)
            classes = class_features()
            logits = scale * features @ classes.T  # (V, C), then (keep, C)
            if step == 0:
                before, kept = logits[0].detach(), most_confident(logits.detach(), keep)
                centre, views, logits = views[:1], views[kept], logits[kept]
                seen = see(reward, reward_views[kept]) if objective == "rlcf" else None
            if objective == "rlcf":
                loss = reinforce(logits, seen, reward_classes, k)
            else:
                loss = entropy(mean_prediction(logits)) - dispersion_weight * dispersion(classes)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = scale * encode_image(student, centre) @ class_features().T
    return before, after[0]


def adapt_image_query(
    student: open_clip.CLIP,
    reward: open_clip.CLIP,
    gallery: Tensor,
    reward_gallery: Tensor,
    pixels: Tensor,
    reward_pixels: Tensor,
    start: Weights,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    k: int,
) -> tuple[Tensor, Tensor]:
    """RLCF of the image tower on one image that looks for its texts.

    gallery, reward_gallery: features of the G texts; pixels, reward_pixels: (1, 3, H, W), the same image as each model
    takes it; start: the student's weights, which are loaded back. Returns its logits (G,) before and after.
    """
    scale, seen = student.logit_scale.detach().exp(), see(reward, reward_pixels)
    with tuning(student, student.visual.parameters()) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for step in range(steps):
            logits = scale * encode_image(student, pixels) @ gallery.T  # (1, G)
            if step == 0:
                before = logits[0].detach()
            loss = reinforce(logits, seen, reward_gallery, k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = scale * encode_image(student, pixels) @ gallery.T
    student.load_state_dict(start)
    return before, after[0]


def adapt_text_query(
    student: open_clip.CLIP,
    reward: open_clip.CLIP,
    gallery: Tensor,
    reward_gallery: Tensor,
    tokens: Tensor,
    start: Weights,
    *,
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    k: int,
) -> tuple[Tensor, Tensor]:
    """RLCF of the text tower, its token embeddings and the logit scale, on one text that looks for its image.

    gallery, reward_gallery: features of the G images; tokens: (1, 77), the same for both models; start: the student's
    weights, which are loaded back. Returns the text's logits (G,) before and after.
    """
    text_tower = [weight for name, weight in student.named_parameters() if not name.startswith("visual.")]
    with torch.no_grad():
        seen = encode_text(reward, tokens)
    with tuning(student, text_tower) as tuned:
        optimiser = adamw(tuned, lr, weight_decay, eps)
        for step in range(steps):
            logits = student.logit_scale.exp() * encode_text(student, tokens) @ gallery.T  # (1, G)
            if step == 0:
                before = logits[0].detach()
            loss = reinforce(logits, seen, reward_gallery, k)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            after = student.logit_scale.exp() * encode_text(student, tokens) @ gallery.T
    student.load_state_dict(start)
    return before, after[0]


def adapt_caption(
    mapper: nn.Module,
    lm: Any,
    tokenizer: Any,
    reward: open_clip.CLIP,
    reward_tokens: Callable[[list[str]], Tensor],
    feature: Tensor,
    reward_pixels: Tensor,
    start: Weights,
    *,
    bos: int,
    stops: list[int],
    steps: int,
    lr: float,
    weight_decay: float,
    eps: float,
    k: int,
    max_new_tokens: int,
    beams: int = 5,
) -> tuple[Tensor, Tensor]:
    """RLCF of a captioner's mapper on one image (ICLR 2024, eq. 3 and 4), and its final caption.

    mapper: (1, D) feature to (1, P, width) prefix; lm: a frozen causal language model of transformers; reward_tokens:
    texts as the reward model takes them; start: the mapper's weights, which are loaded back. Returns the prefix
    (P, width) before and after.
    """
    seen, embed = see(reward, reward_pixels), lm.get_input_embeddings()

    def captions(prefix: Tensor, beams: int) -> list[str]:
        begin = torch.cat([prefix, embed(torch.tensor([[bos]]))], dim=1)
        settings = {"num_beams": beams, "num_return_sequences": beams, "max_new_tokens": max_new_tokens}
        ids = lm.generate(
            inputs_embeds=begin,
            attention_mask=begin.new_ones(begin.shape[:2], dtype=torch.long),
            min_new_tokens=1,
            eos_token_id=stops,
            pad_token_id=stops[-1],
            do_sample=False,
            **settings,
        )
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [" ".join(text.split()) for text in texts]

    def negative_log_likelihood(prefix: Tensor, texts: list[str]) -> Tensor:
        rows = [[bos, *ids] for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        ids = torch.full((len(rows), max(map(len, rows))), stops[-1])
        mask = torch.zeros(ids.shape)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = torch.tensor(row), 1.0
        logits = lm(inputs_embeds=torch.cat([prefix.expand(len(ids), -1, -1), embed(ids)], dim=1)).logits
        of_each = F.cross_entropy(logits[:, prefix.shape[1] - 1 : -1].transpose(1, 2), ids, reduction="none")
        return (of_each * mask).sum(dim=-1) / mask.sum(dim=-1)

    optimiser = adamw(list(mapper.parameters()), lr, weight_decay, eps)
    for step in range(steps):
        prefix = mapper(feature)
        if step == 0:
            before = prefix[0].detach()
        with torch.no_grad():
            texts = captions(prefix.detach(), k)
            scores = 2.5 * (encode_text(reward, reward_tokens(texts)) @ seen[0]).clamp(min=0)
        loss = ((scores - scores.mean()) * negative_log_likelihood(prefix, texts)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        after = mapper(feature)
        captions(after, beams)
    mapper.load_state_dict(start)
    return before, after[0]


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


def dispersion(classes: Tensor) -> Tensor:
    """Mean distance of the classes' features, (C, D), from their mean."""
    return (classes - classes.mean(dim=0)).norm(dim=-1).mean()


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
