"""Parts of a CLIP that an episode tunes: its image tower, its text tower, or only their normalisation layers.

Nothing here changes a model for good: layers are replaced, and gradients required, within a `with` statement alone.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from open_clip.transformer import LayerNorm, LayerNormFp32
from torch import Tensor, nn

from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError

SCALES = ("logit_scale", "logit_bias")


def normalisation_layers(module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """Every normalisation layer of a tower with its name."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds))


def image_tower_parameters(
    clip: Backbone, only_norm: bool, leave_out: Callable[[str], bool] = lambda name: False
) -> dict[str, nn.Parameter]:
    """The image tower's parameters, or those of its normalisation layers, by their names in the tower.

    leave_out: returns True for the name of a parameter that stays as it is.
    Raises UserError for a tower without normalisation layers.
    """
    return _choose(clip.model.visual, only_norm, leave_out, f"the image tower of {clip.name}")


def text_tower_parameters(clip: Backbone, only_norm: bool, embeddings: bool = False) -> dict[str, nn.Parameter]:
    """The text tower's parameters, or those of its normalisation layers, by their names in the model.

    embeddings: also the token embeddings and the logit scale, as the published text-to-image runs.
    Raises UserError for a tower without normalisation layers.
    """
    text = getattr(clip.model, "text", clip.model)
    table = text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
    frozen = set() if embeddings else {id(parameter) for parameter in table.parameters()}
    frozen |= set() if embeddings else {id(getattr(clip.model, name, None)) for name in SCALES}
    parameters = dict(clip.model.named_parameters())

    def leave_out(name: str) -> bool:
        return name.startswith(("visual.", "text_decoder.")) or id(parameters[name]) in frozen

    return _choose(clip.model, only_norm, leave_out, f"the text tower of {clip.name}")


def _choose(
    tower: nn.Module, only_norm: bool, leave_out: Callable[[str], bool], called: str
) -> dict[str, nn.Parameter]:
    norms = {name for name, _ in normalisation_layers(tower)}
    chosen = {
        name: parameter
        for name, parameter in tower.named_parameters()
        if not leave_out(name) and (not only_norm or name.rpartition(".")[0] in norms)
    }
    if not chosen:
        raise UserError(f"{called} has no normalisation layers to tune")
    return chosen


@contextmanager
def requiring_gradients(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within it these parameters require gradients; leaving it puts back what they required before."""
    before = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
            parameter.grad = None


@contextmanager
def layers_replaced(tower: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within it the tower's layers of these names are others; leaving it puts its own ones back."""
    before = {name: tower.get_submodule(name) for name in layers}
    try:
        for name, layer in layers.items():
            _put(tower, name, layer)
        yield
    finally:
        for name, layer in before.items():
            _put(tower, name, layer)


def _put(tower: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(tower.get_submodule(parent), child, layer)


class PriorBatchNorm(nn.Module):
    """A BatchNorm that, in training mode, mixes its stored statistics with those of the batch; gradients see neither.

    prior: N; the stored statistics weigh N / (N + 1) (Schneider et al., NeurIPS 2020, eq. 3). Parameters and stored
    statistics are those of `layer`.
    """

    def __init__(self, layer: nn.BatchNorm2d, prior: float) -> None:
        super().__init__()
        self.layer, self.share = layer, prior / (prior + 1.0)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W)."""
        layer = self.layer
        if not self.training:
            return layer(x)
        assert layer.running_mean is not None and layer.running_var is not None
        with torch.no_grad():
            var, mean = torch.var_mean(x.float(), dim=(0, 2, 3))
            mean = self.share * layer.running_mean + (1.0 - self.share) * mean
            var = self.share * layer.running_var + (1.0 - self.share) * var
        return F.batch_norm(x, mean, var, layer.weight, layer.bias, False, 0.0, layer.eps)


def norms_per_sample(clip: Backbone, samples: int, prior: float = 0.0) -> dict[str, nn.Module]:
    """Normalisation layers for the image tower that have parameters of their own for each of several samples.

    A batch then holds the views of the first sample, of the second, and so on, equally many. Where a layer has its C
    parameters, the new one has samples * C. prior: above 0, as in `PriorBatchNorm`. Returns name -> new layer.
    Raises UserError for a tower that normalises in another way than CLIP's ViTs and ResNets.
    """
    made: dict[str, nn.Module] = {}
    for name, layer in normalisation_layers(clip.model.visual):
        if isinstance(layer, nn.BatchNorm2d):
            made[name] = BatchNormPerSample(layer, samples, prior)
        elif isinstance(layer, nn.LayerNorm) and type(layer) in (nn.LayerNorm, LayerNorm, LayerNormFp32):
            made[name] = LayerNormPerSample(layer, samples)
        else:
            raise UserError(f"--images-at-once above 1 does not know the {type(layer).__name__} of {clip.name}; use 1")
    return made


class LayerNormPerSample(nn.Module):
    """A LayerNorm with a scale and a shift of each sample's own. weight, bias: (samples * width,)."""

    def __init__(self, layer: nn.LayerNorm, samples: int) -> None:
        super().__init__()
        self.shape, self.eps, self.samples = layer.normalized_shape, layer.eps, samples
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().repeat(samples), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """x: (samples * V, ..., width)."""
        normalised = F.layer_norm(x.float(), self.shape, eps=self.eps).unflatten(0, (self.samples, -1))
        for name, apply in (("weight", torch.mul), ("bias", torch.add)):
            parameter = getattr(self, name, None)
            if parameter is not None:
                normalised = apply(normalised, parameter.view(self.samples, *[1] * (normalised.dim() - 2), -1))
        return normalised.flatten(0, 1).to(x.dtype)


class BatchNormPerSample(nn.Module):
    """A BatchNorm that has the channels of several samples side by side, and so each sample's own statistics."""

    def __init__(self, layer: nn.BatchNorm2d, samples: int, prior: float = 0.0) -> None:
        super().__init__()
        self.samples = samples
        wide = copy.deepcopy(layer)
        wide.num_features *= samples
        for name, parameter in layer.named_parameters():
            setattr(wide, name, nn.Parameter(parameter.detach().repeat(samples), requires_grad=False))
        for name in ("running_mean", "running_var"):
            setattr(wide, name, getattr(layer, name).repeat(samples))
        self.wide: nn.Module = PriorBatchNorm(wide, prior) if prior > 0 else wide

    def forward(self, x: Tensor) -> Tensor:
        """x: (samples * V, C, H, W)."""
        channels = x.unflatten(0, (self.samples, -1)).transpose(0, 1).flatten(1, 2)  # (V, samples * C, H, W)
        return self.wide(channels).unflatten(1, (self.samples, -1)).transpose(0, 1).flatten(0, 1)
