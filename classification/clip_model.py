"""The student: what is tuned, and how an image's logits over the classes come about.

A policy adapts to one sample, or to several at once whose tuned parameters lie side by side. Shapes are those of one
sample; of several, N stands before them: views (N, V, 3, H, W), logits (N, V, C).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.classnames import class_texts
from rlcf.clip.backbone import Backbone
from rlcf.clip.checkpoints import read_weights
from rlcf.clip.class_features import ClassFeatures, default_chunk
from rlcf.clip.prompted_text import prompt_classes, word_tokens
from rlcf.clip.tuning import norms_per_sample, tune_image_tower
from rlcf.errors import UserError


class PromptPolicy:
    """Tunes the context vectors of the class prompts; image features are frozen (TPT, NeurIPS 2022; CoOp, IJCV 2022).

    context: (n_ctx, width) starting vectors; samples: how many are adapted to at once; chunk: classes whose text graph
    is held at a time, None for as many as a share of the free memory holds.
    """

    views_interact = False

    def __init__(
        self,
        clip: Backbone,
        classnames: Sequence[str],
        context: Tensor,
        position: str = "end",
        samples: int = 1,
        chunk: int | None = None,
    ) -> None:
        tower = clip.text_tower
        if tower is None:
            raise UserError(f"the text tower of {clip.name} cannot be driven by embeddings; use --tune image-encoder")
        self.clip, self.n_classes = clip, len(classnames)
        context = context.detach().clone().to(clip.device)
        self.context = nn.Parameter(context if samples == 1 else context.repeat(samples, 1, 1))
        clip.tokenize(classnames)  # refuses a word that an embedded model lacks
        self.prompts = prompt_classes(tower, clip.tokenizer, classnames, len(context), position, clip.device)
        chunk = chunk or default_chunk(self.prompts, samples, clip.device)
        self.class_features = ClassFeatures(clip, self.prompts, chunk)
        self.tuned: dict[str, nn.Parameter] = {"context": self.context}
        self.buffers: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(self, views: Tensor) -> Tensor:
        """What stays frozen of a sample. views: (V, 3, H, W) as made. Returns (V, D) image features."""
        return of_each_view(lambda views: self.clip.encode_image(self.clip.prepare(views)), views)

    def screen(self, views: Tensor) -> Tensor:
        """Logits in bf16, without a graph, to leave views out. views: (V, 3, H, W) as made. Returns (V, C)."""
        return self._similarity(screening_features(self.clip, views), self.class_features.at_start(self.context))

    def logits(self, features: Tensor) -> Tensor:
        """Logits that are learnt from. features: (V, D) from `encode`. Returns (V, C), scaled.

        Without a graph they are those that an episode starts from.
        """
        learning = torch.is_grad_enabled()
        classes = self.class_features if learning else self.class_features.at_start
        return self._similarity(features, classes(self.context))

    def zero_shot(self, features: Tensor) -> Tensor:
        """The logits of the model as it was loaded. features: (V, D). Returns (V, C)."""
        return self._similarity(features, self.class_features.at_start(self.context))

    def answer(self, features: Tensor) -> Tensor:
        """The logits of the adapted model. features: (V, D). Returns (V, C)."""
        return self._similarity(features, self.class_features(self.context))

    def _similarity(self, features: Tensor, classes: Tensor) -> Tensor:
        return self.clip.logit_scale * features @ classes.mT


class EncoderPolicy:
    """Tunes the image tower, or only its normalisation layers; class features are frozen.

    tune: "image-encoder" or "norm". batchnorm: statistics of a ResNet's BatchNorm layers - "batch": of the views while
    tuning, the stored ones (which tuning moved) for the answer, as published; "frozen": the stored ones throughout;
    "published-norm": as the published norm tuning, those of the one image also for the answer, and the layers of the
    downsample branches not tuned. bn_prior: N > 0 mixes, while tuning, the stored statistics with those of the views,
    N / (N + 1) to 1 / (N + 1) (Schneider et al., NeurIPS 2020, eq. 3). samples: how many are adapted to at once, each
    with normalisation layers of its own.
    """

    def __init__(
        self,
        clip: Backbone,
        class_features: Tensor,
        tune: str = "image-encoder",
        batchnorm: str = "batch",
        bn_prior: float = 0.0,
        samples: int = 1,
    ) -> None:
        self.clip, self.class_features, self.n_classes = clip, class_features, len(class_features)
        self.visual: nn.Module = clip.model.visual
        batch_norms = [layer for layer in self.visual.modules() if isinstance(layer, nn.BatchNorm2d)]
        if bn_prior > 0:
            if not batch_norms or not all(type(layer) in (nn.BatchNorm2d, _PriorBatchNorm) for layer in batch_norms):
                raise UserError(f"--bn-prior is for CLIP's ResNets; the image tower of {clip.name} has no BatchNorm")
            for layer in batch_norms:
                _mix_statistics(layer, bn_prior)
        self.tuned = tune_image_tower(
            clip, tune == "norm", lambda name: batchnorm == "published-norm" and "downsample" in name
        )
        self.buffers = dict(self.visual.named_buffers())
        if samples > 1:
            layers = nn.ModuleList(norms_per_sample(clip, self.tuned, samples))
            batch_norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
            self.tuned = {name: p for name, p in layers.named_parameters() if p.requires_grad}
            self.buffers = dict(layers.named_buffers())
        self._train_layers = batch_norms if batchnorm != "frozen" else []
        self._answer_from_batch = batchnorm == "published-norm"
        self._whole = samples > 1 or bool(self._train_layers)
        self.views_interact = bool(self._train_layers)
        """Whether a view's logits depend on the other views."""

    def encode(self, views: Tensor) -> Tensor:
        """What stays frozen of a sample. views: (V, 3, H, W) as made. Returns (V, 3, *size) pixels."""
        return of_each_view(self.clip.prepare, views)

    def screen(self, views: Tensor) -> Tensor:
        """Logits in bf16, without a graph, to leave views out. views: (V, 3, H, W) as made. Returns (V, C)."""
        return self.clip.logit_scale * screening_features(self.clip, views) @ self.class_features.T

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits that are learnt from. pixels: (V, 3, *size) from `encode`. Returns (V, C), scaled."""
        return self._forward(pixels, batch_statistics=True)

    def zero_shot(self, pixels: Tensor) -> Tensor:
        """The logits of the model as it was loaded. pixels: (V, 3, *size). Returns (V, C)."""
        return self._forward(pixels, batch_statistics=False)

    def answer(self, pixels: Tensor) -> Tensor:
        """The logits of the adapted model. pixels: (V, 3, *size). Returns (V, C)."""
        return self._forward(pixels, self._answer_from_batch)

    def _forward(self, pixels: Tensor, batch_statistics: bool) -> Tensor:
        for layer in self._train_layers:
            layer.train(batch_statistics)
        features = of_each_view(lambda pixels: self.clip.encode_image(pixels, self._whole), pixels)
        return self.clip.logit_scale * features @ self.class_features.T


Policy = PromptPolicy | EncoderPolicy


def of_each_view(function: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
    """A function of a batch of images, for the views of one sample or of several. views: (..., V, 3, H, W)."""
    return function(views.flatten(0, -4)).unflatten(0, views.shape[:-3])


@torch.no_grad()
def screening_features(clip: Backbone, views: Tensor) -> Tensor:
    """Image features in bf16 autocast, whatever the model's own precision. views: (V, 3, H, W). Returns (V, D)."""
    quick = replace(clip, precision="bf16")
    return of_each_view(lambda views: quick.encode_image(quick.prepare(views)), views)


class _PriorBatchNorm(nn.BatchNorm2d):
    """BatchNorm that, in training mode, mixes its stored statistics with the batch's; gradients see neither."""

    prior: float

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        share = self.prior / (self.prior + 1.0)
        with torch.no_grad():
            var, mean = torch.var_mean(input.float(), dim=(0, 2, 3))
            mean = share * self.running_mean + (1.0 - share) * mean
            var = share * self.running_var + (1.0 - share) * var
        return F.batch_norm(input, mean, var, self.weight, self.bias, False, 0.0, self.eps)


def _mix_statistics(layer: nn.BatchNorm2d, prior: float) -> None:
    layer.__class__ = _PriorBatchNorm
    layer.prior = prior


@torch.no_grad()
def class_features(
    clip: Backbone, classnames: Sequence[str], prompt: str, position: str = "end", templates: str = "single"
) -> Tensor:
    """(C, D), unit length; with several templates the mean of their unit-length features, again unit length.

    Raises UserError for a text that is longer than the model's context.
    """
    texts = [class_texts(name, prompt, position, templates) for name in classnames]
    long = next((group[0] for group in texts if clip.truncated(group)), None)
    if long is not None:
        raise UserError(f"the text tower of {clip.name} has no room for '{long}'; shorten the class name or --prompt")
    features = clip.encode_text([text for group in texts for text in group])
    return F.normalize(features.view(len(classnames), -1, features.shape[-1]).mean(dim=1), dim=-1)


def initial_context(clip: Backbone, context: str, n_ctx: int, prompt: str, seed: int) -> Tensor:
    """Starting vectors of prompt tuning, (n_ctx, width).

    context: "words" - the embedding of `prompt`; "random" - n_ctx vectors N(0, 0.02), as CoOp; else the path of a CoOp
    checkpoint. Raises UserError for a file that is none, or of another width.
    """
    tower = clip.text_tower
    if tower is None:
        raise UserError(f"the text tower of {clip.name} cannot be driven by embeddings; use --tune image-encoder")
    if context == "random":
        generator = torch.Generator().manual_seed(seed)
        return (0.02 * torch.randn(n_ctx, tower.width, generator=generator)).to(clip.device)
    if context != "words":
        return read_coop(Path(context).expanduser(), tower.width).to(clip.device)
    clip.tokenize([prompt])
    ids = word_tokens(clip.tokenizer, prompt.replace("_", " "))
    if not ids:
        raise UserError("--prompt has no words to start the context from; use --context random")
    with torch.no_grad():
        return tower.embed(torch.tensor(ids, device=clip.device)).detach().clone()


COOP_FILES = ("prompt_learner/model.pth.tar-50", "prompt_learner/model-best.pth.tar", "model-best.pth.tar")


def read_coop(path: Path, width: int) -> Tensor:
    """The context of a CoOp checkpoint, a file or its folder: (n_ctx, width). Raises UserError for anything else."""
    if path.is_dir():
        found = [path / name for name in COOP_FILES if (path / name).is_file()]
        if not found:
            raise UserError(f"{path} is no CoOp checkpoint folder; it needs {' or '.join(COOP_FILES[:2])}")
        path = found[0]
    checkpoint: Any = read_weights(path)
    state = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, dict) else {}
    context = state.get("ctx") if isinstance(state, dict) else None
    if not isinstance(context, Tensor) or context.dim() != 2:
        raise UserError(f"{path} is no CoOp checkpoint: it needs state_dict['ctx'] of shape (n_ctx, width)")
    if context.shape[1] != width:
        raise UserError(
            f"the CoOp context of {path} is {context.shape[1]} wide, the student's text tower {width}; use the "
            "checkpoint that was trained with this student"
        )
    return context.float()
