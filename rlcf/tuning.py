"""What of a CLIP an episode tunes: its image tower, its text tower, or only their normalisation layers."""

from collections.abc import Callable, Iterable

from torch import nn

from rlcf.backbone import Backbone
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
    for parameter in tuned.values():
        parameter.requires_grad_(True)
    return tuned
