"""What of a CLIP an episode tunes: its image tower, its text tower, or only their normalisation layers."""

import copy
from collections.abc import Callable, Iterable
from functools import partial

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


def tune_image_tower(
    clip: Backbone, only_norm: bool, leave_out: Callable[[str], bool] = lambda name: False
) -> dict[str, nn.Parameter]:
    """Let the image tower's parameters require gradients, or those of its normalisation layers, and nothing else.

    leave_out: whether the parameter of that name stays as it is. Returns those that are tuned.
    Raises UserError for a tower without normalisation layers.
    """
    tuned = _choose(clip.model.visual, only_norm, leave_out, f"the image tower of {clip.name}")
    return _require_gradients(clip, tuned)


def tune_text_tower(clip: Backbone, only_norm: bool, embeddings: bool = False) -> dict[str, nn.Parameter]:
    """The same for the text tower.

    embeddings: also the token embeddings and the logit scale, as the published text-to-image runs.
    """
    text = getattr(clip.model, "text", clip.model)
    table = text.token_embedding if hasattr(text, "token_embedding") else text.transformer.get_input_embeddings()
    frozen = set() if embeddings else {id(parameter) for parameter in table.parameters()}
    frozen |= set() if embeddings else {id(getattr(clip.model, name, None)) for name in SCALES}
    parameters = dict(clip.model.named_parameters())

    def leave_out(name: str) -> bool:
        return name.startswith(("visual.", "text_decoder.")) or id(parameters[name]) in frozen

    return _require_gradients(clip, _choose(clip.model, only_norm, leave_out, f"the text tower of {clip.name}"))


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


def _require_gradients(clip: Backbone, tuned: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    clip.model.requires_grad_(False)
    for _, layer in normalisation_layers(clip.model):
        vars(layer).pop("forward", None)  # of an earlier `norms_per_sample`
    for parameter in tuned.values():
        parameter.requires_grad_(True)
    return tuned


def norms_per_sample(clip: Backbone, tuned: Iterable[str], samples: int) -> list[nn.Module]:
    """Give the image tower's normalisation layers parameters of their own for each of several samples.

    A batch then holds the views of the first sample, of the second, and so on, equally many. Where a layer has its C
    parameters, the new one has samples * C; only those named in `tuned` require gradients. Until the tower is tuned in
    another way, its layers act through the new ones. Returns these, in the tower's order.
    Raises UserError for a tower that normalises in another way than CLIP's ViTs and ResNets.
    """
    names = set(tuned)
    made: list[nn.Module] = []
    clip.model.requires_grad_(False)
    for name, layer in normalisation_layers(clip.model.visual):
        vars(layer).pop("forward", None)
        new: nn.Module
        forward: Callable[[Tensor], Tensor]
        if isinstance(layer, nn.BatchNorm2d):
            new = wide = _wider(layer, samples)
            forward = partial(_side_by_side, wide, samples)
        elif isinstance(layer, nn.LayerNorm) and type(layer) in (nn.LayerNorm, LayerNorm, LayerNormFp32):
            new = LayerNormPerSample(layer, samples)
            forward = new.forward
        else:
            raise UserError(f"--episodes above 1 does not know the {type(layer).__name__} of {clip.name}; use 1")
        for leaf, parameter in new.named_parameters():
            parameter.requires_grad_(f"{name}.{leaf}" in names)
        vars(layer)["forward"] = forward
        made.append(new)
    return made


class LayerNormPerSample(nn.Module):
    """A LayerNorm with a scale and a shift a sample. weight, bias: (samples * width,)."""

    def __init__(self, layer: nn.LayerNorm, samples: int) -> None:
        super().__init__()
        self.shape, self.eps, self.samples = layer.normalized_shape, layer.eps, samples
        for name, parameter in layer.named_parameters():
            self.register_parameter(name, nn.Parameter(parameter.detach().repeat(samples)))

    def forward(self, x: Tensor) -> Tensor:
        """x: (samples * V, ..., width)."""
        normalised = F.layer_norm(x.float(), self.shape, eps=self.eps).unflatten(0, (self.samples, -1))
        for name, apply in (("weight", torch.mul), ("bias", torch.add)):
            parameter = getattr(self, name, None)
            if parameter is not None:
                normalised = apply(normalised, parameter.view(self.samples, *[1] * (normalised.dim() - 2), -1))
        return normalised.flatten(0, 1).to(x.dtype)


def _wider(layer: nn.BatchNorm2d, samples: int) -> nn.BatchNorm2d:
    """A BatchNorm with the channels of several samples."""
    wide = copy.deepcopy(layer)
    wide.num_features *= samples
    for name, parameter in layer.named_parameters():
        setattr(wide, name, nn.Parameter(parameter.detach().repeat(samples)))
    for name in ("running_mean", "running_var"):
        setattr(wide, name, getattr(layer, name).repeat(samples))
    return wide


def _side_by_side(wide: nn.BatchNorm2d, samples: int, x: Tensor) -> Tensor:
    """The samples' views as channels, so that the statistics are each sample's own. x: (samples * V, C, H, W)."""
    channels = x.unflatten(0, (samples, -1)).transpose(0, 1).flatten(1, 2)
    return wide(channels).unflatten(1, (samples, -1)).transpose(0, 1).flatten(0, 1)
