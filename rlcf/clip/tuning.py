"""The parts of a CLIP that an episode tunes: the image tower, the text tower, or their normalisation layers.

Two context managers change a model, and undo the change when they are left.
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
"""Parameters of a CLIP that belong to neither tower."""


def normalisation_layers(module: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """The names and the normalisation layers of a module, in its own order."""
    kinds = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)
    return ((name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds))


def image_tower_parameters(
    clip: Backbone, only_norm: bool, leave_out: Callable[[str], bool] = lambda name: False
) -> dict[str, nn.Parameter]:
    """The parameters of the image tower by their names in it.

    only_norm: those of its normalisation layers alone. leave_out: returns True for the name of a parameter to leave
    out. Raises UserError for a tower without normalisation layers.
    """
    return _choose(clip.model.visual, only_norm, leave_out, f"the image tower of {clip.name}")


def text_tower_parameters(clip: Backbone, only_norm: bool, embeddings: bool = False) -> dict[str, nn.Parameter]:
    """The parameters of the text tower by their names in the model.

    only_norm: those of its normalisation layers alone. embeddings: also the token embeddings and the logit scale, as in
    the published text-to-image runs. Raises UserError for a tower without normalisation layers.
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
    """The chosen parameters of a tower by name. called: the tower's name in the message of the UserError."""
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
    """Within this context the parameters require gradients.

    On leaving it their gradients are dropped, and each requires gradients or not as before.
    """
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
    """Within this context the tower has other layers under the given names. On leaving it has its own ones again."""
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
    """A BatchNorm that normalises with a mix of its stored statistics and those of the batch, in training mode.

    The stored statistics have the weight N / (N + 1), those of the batch 1 / (N + 1) (Schneider et al., NeurIPS 2020,
    eq. 3). No gradient flows through the statistics, and the stored ones do not change.

    layer: the BatchNorm whose parameters and stored statistics are used. prior: N.
    """

    def __init__(self, layer: nn.BatchNorm2d, prior: float) -> None:
        super().__init__()
        self.layer, self.share = layer, prior / (prior + 1.0)
        self.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W). Returns (B, C, H, W)."""
        layer = self.layer
        if not self.training:
            return layer(x)
        assert layer.running_mean is not None and layer.running_var is not None
        with torch.no_grad():
            var, mean = torch.var_mean(x.float(), dim=(0, 2, 3))  # (C,), (C,)
            mean = self.share * layer.running_mean + (1.0 - self.share) * mean
            var = self.share * layer.running_var + (1.0 - self.share) * var
        return F.batch_norm(x, mean, var, layer.weight, layer.bias, False, 0.0, layer.eps)


def norms_per_sample(clip: Backbone, samples: int, prior: float = 0.0) -> dict[str, nn.Module]:
    """New normalisation layers for the image tower, with separate parameters for each of several samples.

    With them a batch holds the V views of the first sample, then those of the second, and so on. A parameter of the
    tower's layer is (C,), that of the new one (samples * C,). prior: as in `PriorBatchNorm`; 0 for plain BatchNorms.
    Returns new layers by the names of those they are for; `layers_replaced` puts them into the tower.
    Raises UserError for a tower with normalisation layers other than those of CLIP's ViTs and ResNets.
    """
    made: dict[str, nn.Module] = {}
    for name, layer in normalisation_layers(clip.model.visual):
        if isinstance(layer, nn.BatchNorm2d):
            made[name] = BatchNormPerSample(layer, samples, prior)
        elif isinstance(layer, nn.LayerNorm) and type(layer) in (nn.LayerNorm, LayerNorm, LayerNormFp32):
            made[name] = LayerNormPerSample(layer, samples)
        else:
            raise UserError(
                f"the {type(layer).__name__} of {clip.name} cannot adapt to several images at once; use one at a time"
            )
    return made


class LayerNormPerSample(nn.Module):
    """A LayerNorm with a separate scale and shift for each sample. weight, bias: (samples * width,)."""

    def __init__(self, layer: nn.LayerNorm, samples: int) -> None:
        super().__init__()
        self.shape, self.eps, self.samples = layer.normalized_shape, layer.eps, samples
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().repeat(samples), requires_grad=False))

    def forward(self, x: Tensor) -> Tensor:
        """x: (samples * V, ..., width). Returns the same shape."""
        normalised = F.layer_norm(x.float(), self.shape, eps=self.eps)
        normalised = normalised.unflatten(0, (self.samples, -1))  # (samples, V, ..., width)
        for name, apply in (("weight", torch.mul), ("bias", torch.add)):
            parameter = getattr(self, name, None)
            if parameter is not None:
                normalised = apply(normalised, parameter.view(self.samples, *[1] * (normalised.dim() - 2), -1))
        return normalised.flatten(0, 1).to(x.dtype)


class BatchNormPerSample(nn.Module):
    """A BatchNorm with separate parameters and statistics for each sample.

    It is one BatchNorm of samples * C channels: C for the first sample, C for the second, and so on.
    """

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
        """x: (samples * V, C, H, W). Returns the same shape."""
        channels = x.unflatten(0, (self.samples, -1)).transpose(0, 1).flatten(1, 2)  # (V, samples * C, H, W)
        return self.wide(channels).unflatten(1, (self.samples, -1)).transpose(0, 1).flatten(0, 1)
