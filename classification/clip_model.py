"""The student: what is tuned, and how an image's logits over the classes come about.

A policy adapts to N samples at once, whose tuned parameters lie side by side; N is 1 where nothing else is said. Within
`with policy:` its model has the layers and the gradients that the policy needs; outside it is as it was loaded.

Of a sample, `encode` gives what stays frozen, a row a view: pixels where the image tower is tuned, features elsewhere.
`start` is the number of the weights that an episode starts from (`rlcf.adapt.episode.Episode`).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classification.class_texts import class_texts
from classification.context import text_tower
from rlcf.clip.backbone import Backbone
from rlcf.clip.class_features import ClassFeatures, default_chunk
from rlcf.clip.prompted_text import PromptedText, prompt_classes
from rlcf.clip.tuning import (
    PriorBatchNorm,
    image_tower_parameters,
    layers_replaced,
    norms_per_sample,
    requiring_gradients,
)
from rlcf.errors import UserError


class FrozenPolicy:
    """Tunes nothing: for methods without gradients. class_features: (C, D), unit length."""

    views_interact = False

    def __init__(self, clip: Backbone, class_features: Tensor) -> None:
        self.clip, self.class_features = clip, class_features

    def __enter__(self) -> "FrozenPolicy":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was changed."""

    @torch.no_grad()
    def encode(self, views: Tensor) -> Tensor:
        """Image features. views: (N, V, 3, H, W) as made. Returns (N, V, D), unit length."""
        return encode_views(self.clip, views)

    @torch.no_grad()
    def zero_shot(self, features: Tensor) -> Tensor:
        """The logits. features: (N, V, D). Returns (N, V, C), scaled."""
        return self.clip.logit_scale * features @ self.class_features.mT


class PromptPolicy:
    """Tunes the context vectors of the class prompts; image features are frozen (TPT, NeurIPS 2022; CoOp, IJCV 2022).

    context: (n_ctx, width) starting vectors; samples: N; chunk: classes whose text graph is held at a time, None for as
    many as a share of the free memory holds.
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
        self.clip = clip
        self.context = nn.Parameter(context.detach().to(clip.device).repeat(samples, 1, 1))  # (N, n_ctx, width)
        prompts = lay_out_prompts(clip, classnames, len(context), position)
        self.class_features = ClassFeatures(clip, prompts, chunk or default_chunk(prompts, samples, clip.device))
        self.tuned: dict[str, nn.Parameter] = {"context": self.context}
        self.buffers: dict[str, Tensor] = {}

    def __enter__(self) -> "PromptPolicy":
        return self

    def __exit__(self, *_: object) -> None:
        """The context is the policy's own: nothing of the model was changed."""

    def own(self, sample: int) -> list[Tensor]:
        """Returns the context vectors of one sample, as a view. sample: its place among the N."""
        return [self.context.detach()[sample]]

    @torch.no_grad()
    def encode(self, views: Tensor) -> Tensor:
        """Image features. views: (N, V, 3, H, W) as made. Returns (N, V, D), unit length."""
        return encode_views(self.clip, views)

    @torch.no_grad()
    def screen(self, views: Tensor, start: int) -> Tensor:
        """Logits in bf16 with the starting weights. views: (N, V, 3, H, W) as made. Returns (N, V, C)."""
        return self._similarity(screening_features(self.clip, views), self.class_features.at_start(self.context, start))

    @torch.no_grad()
    def rank(self, features: Tensor, start: int) -> Tensor:
        """Logits with the starting weights. features: (N, V, D) from `encode`. Returns (N, V, C)."""
        return self._similarity(features, self.class_features.at_start(self.context, start))

    def classes(self, start: int | None = None) -> Tensor:
        """Features of the classes with a graph, (N, C, D). start: given while the weights are the starting ones."""
        return self.class_features(self.context, start)

    def logits(self, features: Tensor, classes: Tensor) -> Tensor:
        """Logits with a graph. features: (N, V, D); classes: from `classes`. Returns (N, V, C)."""
        return self._similarity(features, classes)

    @torch.no_grad()
    def zero_shot(self, features: Tensor) -> Tensor:
        """The logits of the model as it was loaded, outside of an episode. features: (N, V, D). Returns (N, V, C)."""
        return self._similarity(features, self.class_features.at_start(self.context, 0))

    @torch.no_grad()
    def answer(self, features: Tensor) -> Tensor:
        """The logits of the adapted model. features: (N, V, D). Returns (N, V, C)."""
        return self._similarity(features, self.class_features.evaluate(self.context))

    def _similarity(self, features: Tensor, classes: Tensor) -> Tensor:
        return self.clip.logit_scale * features @ classes.mT


class EncoderPolicy:
    """Tunes the image tower, or only its normalisation layers; class features are frozen.

    tune: "image-encoder" or "norm". batchnorm: statistics of a ResNet's BatchNorm layers - "batch": of the views while
    tuning, the stored ones (which tuning moved) for the answer, as published; "frozen": the stored ones throughout;
    "published-norm": as the published norm tuning, those of the one image also for the answer, and the layers of the
    downsample branches not tuned. bn_prior: N > 0 mixes, while tuning, the stored statistics with those of the views,
    N / (N + 1) to 1 / (N + 1) (Schneider et al., NeurIPS 2020, eq. 3). samples: adapted to at once, each with
    normalisation layers of its own.
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
        self.clip, self.class_features = clip, class_features
        self.visual: nn.Module = clip.model.visual
        norms = {name: layer for name, layer in self.visual.named_modules() if isinstance(layer, nn.BatchNorm2d)}
        if bn_prior > 0 and not norms:
            raise UserError(f"--bn-prior is for CLIP's ResNets; the image tower of {clip.name} has no BatchNorm")
        self.tuned = image_tower_parameters(
            clip, tune == "norm", lambda name: batchnorm == "published-norm" and "downsample" in name
        )
        self._replaced: dict[str, nn.Module] = {}
        if samples > 1:
            names, self._replaced = set(self.tuned), norms_per_sample(clip, samples, bn_prior)
            self.tuned = {
                f"{name}.{leaf}": parameter
                for name, layer in self._replaced.items()
                for leaf, parameter in layer.named_parameters()
                if f"{name}.{leaf.rpartition('.')[2]}" in names
            }
        elif bn_prior > 0:
            self._replaced = {name: PriorBatchNorm(layer, bn_prior) for name, layer in norms.items()}
        trained = [layer for name, layer in (norms | self._replaced).items() if name in norms]
        self._trained = [] if batchnorm == "frozen" else trained
        self.buffers = {
            f"{i}.{name}": buffer for i, layer in enumerate(self._trained) for name, buffer in layer.named_buffers()
        }
        self._answer_from_batch = batchnorm == "published-norm"
        self.views_interact = bool(self._trained)
        """True where a view's logits depend on the other views."""
        self._together, self._samples = samples > 1 or self.views_interact, samples
        self._changes = ExitStack()

    def __enter__(self) -> "EncoderPolicy":
        with ExitStack() as changes:
            changes.enter_context(layers_replaced(self.visual, self._replaced))
            changes.enter_context(requiring_gradients(self.tuned.values()))
            self._changes = changes.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._use_statistics_of_batch(False)
        self._changes.close()

    def own(self, sample: int) -> list[Tensor]:
        """Returns the tuned parameters and the statistics of one sample, as views. sample: its place among the N."""
        tensors = [tensor.detach() for tensor in (*self.tuned.values(), *self.buffers.values())]
        return [tensor.view(self._samples, -1)[sample] for tensor in tensors if tensor.dim()]  # counters are shared

    @torch.no_grad()
    def encode(self, views: Tensor) -> Tensor:
        """Pixels as the tower takes them. views: (N, V, 3, H, W) as made. Returns (N, V, 3, *size)."""
        return of_each_view(self.clip.prepare, views)

    @torch.no_grad()
    def screen(self, views: Tensor, start: int) -> Tensor:
        """Logits in bf16 with the starting weights. views: (N, V, 3, H, W) as made. Returns (N, V, C)."""
        return self._similarity(screening_features(self.clip, views))

    def rank(self, pixels: Tensor, start: int) -> Tensor:
        """Logits with the starting weights. pixels: (N, V, 3, *size) from `encode`. Returns (N, V, C).

        They have a graph where views interact: then it is this pass that is learnt from.
        """
        if self.views_interact:
            return self.logits(pixels, self.class_features)
        with torch.no_grad():
            return self._forward(pixels, batch_statistics=False, in_parts=True)

    def classes(self, start: int | None = None) -> Tensor:
        """Features of the classes, (C, D), frozen."""
        return self.class_features

    def logits(self, pixels: Tensor, classes: Tensor) -> Tensor:
        """Logits with a graph. pixels: (N, V, 3, *size); classes: from `classes`. Returns (N, V, C), scaled."""
        return self._forward(pixels, batch_statistics=True, in_parts=False)

    @torch.no_grad()
    def zero_shot(self, pixels: Tensor) -> Tensor:
        """The logits of the model as it was loaded, outside of an episode. pixels: (N, V, 3, *size)."""
        return self._forward(pixels, batch_statistics=False, in_parts=True)

    @torch.no_grad()
    def answer(self, pixels: Tensor) -> Tensor:
        """The logits of the adapted model. pixels: (N, V, 3, *size). Returns (N, V, C)."""
        return self._forward(pixels, self._answer_from_batch, in_parts=True)

    def _forward(self, pixels: Tensor, batch_statistics: bool, in_parts: bool) -> Tensor:
        self._use_statistics_of_batch(batch_statistics)
        in_parts = in_parts and not self._together
        return self._similarity(of_each_view(lambda pixels: self.clip.encode_image(pixels, in_parts), pixels))

    def _use_statistics_of_batch(self, on: bool) -> None:
        for layer in self._trained:
            layer.train(on)

    def _similarity(self, features: Tensor) -> Tensor:
        return self.clip.logit_scale * features @ self.class_features.T


Policy = PromptPolicy | EncoderPolicy


def of_each_view(function: Callable[[Tensor], Tensor], views: Tensor) -> Tensor:
    """A function of a batch of images, applied to all views of all samples at once. views: (N, V, 3, H, W)."""
    return function(views.flatten(0, 1)).unflatten(0, views.shape[:2])


def encode_views(clip: Backbone, views: Tensor) -> Tensor:
    """Image features, (N, V, D), unit length. views: (N, V, 3, H, W) as made."""
    return of_each_view(lambda views: clip.encode_image(clip.prepare(views)), views)


def screening_features(clip: Backbone, views: Tensor) -> Tensor:
    """Image features in bf16 autocast, (N, V, D), whatever the model's own precision. views: (N, V, 3, H, W)."""
    return encode_views(replace(clip, precision="bf16"), views)


def lay_out_prompts(clip: Backbone, classnames: Sequence[str], n_ctx: int, position: str) -> PromptedText:
    """One prompt a class with n_ctx context slots. Raises UserError as `prompt_classes`, and for an unknown word."""
    clip.tokenize(classnames)  # refuses a word that a closed vocabulary lacks
    return prompt_classes(text_tower(clip), clip.tokenizer, classnames, n_ctx, position)


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


def features_of_context(clip: Backbone, classnames: Sequence[str], context: Tensor, position: str = "end") -> Tensor:
    """The classes' unit-length features, (C, D), with a context that stays as it is. context: (n_ctx, width)."""
    prompts = lay_out_prompts(clip, classnames, len(context), position)
    return ClassFeatures(clip, prompts, len(prompts)).evaluate(context)
