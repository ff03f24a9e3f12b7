"""From a CLIP feature to a prefix of language-model embeddings: ClipCap's two mappers, and their checkpoints."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from caption.files import find_checkpoint
from rlcf.clip.weights import build_to_fit, read_weights, require_finite, tensors_in
from rlcf.errors import UserError
from rlcf.linear import Linear
from rlcf.run.tensor_files import save_atomically

MAPPER_KEYS, LM_KEYS = "clip_project.", "llm.llm."
"""Beginnings of the names of the mapper's and the language model's weights in published checkpoints."""


class TransformerMapper(nn.Module):
    """ClipCap's transformer mapper (Mokady et al., 2021, section 3).

    The feature becomes `clip_length` tokens, learnt constants follow them, and after `layers` of attention over both
    the prefix is what stands at the constants. Modules bear the names of the published checkpoints.
    """

    def __init__(
        self,
        feature_width: int,
        width: int,
        prefix_length: int = 40,
        clip_length: int = 40,
        layers: int = 8,
        heads: int = 8,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.feature_width, self.heads = feature_width, heads
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))
        blocks = nn.ModuleList(_Block(width, heads, hidden or 2 * width) for _ in range(layers))
        self.transformer = nn.ModuleDict({"layers": blocks})
        self.linear = Linear(feature_width, clip_length * width)

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, feature_width), unit length. Returns (N, prefix_length, width)."""
        constants = self.prefix_const.expand(len(features), -1, -1)
        x = self.linear(features).view(len(features), -1, constants.shape[-1])
        x = torch.cat([x, constants.to(x.dtype)], dim=1)
        blocks = cast(nn.ModuleList, self.transformer["layers"])
        for block in blocks:
            x = block(x)
        return x[:, -constants.shape[1] :]


class _Block(nn.Module):
    """One pre-norm layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"fc1": Linear(width, hidden), "fc2": Linear(hidden, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.relu(self.mlp["fc1"](self.norm2(x))))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_queries = Linear(width, width, bias=False)
        self.to_keys_values = Linear(width, 2 * width, bias=False)
        self.project = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, tokens, width / heads)
            for part in (self.to_queries(x), *self.to_keys_values(x).chunk(2, dim=-1))
        )
        attended = F.scaled_dot_product_attention(queries, keys, values)
        return self.project(attended.transpose(1, 2).flatten(-2))


class MLPMapper(nn.Module):
    """ClipCap's other mapper: two linear layers and a tanh. `width` is needed to cut its output into a prefix."""

    def __init__(self, feature_width: int, width: int, prefix_length: int = 40) -> None:
        super().__init__()
        self.feature_width, self.width = feature_width, width
        hidden, out = prefix_length * width // 2, prefix_length * width
        self.model = nn.Sequential(Linear(feature_width, hidden), nn.Tanh(), Linear(hidden, out))

    def forward(self, features: Tensor) -> Tensor:
        """features: (N, feature_width), unit length. Returns (N, prefix_length, width)."""
        return self.model(features).view(len(features), -1, self.width)


Mapper = TransformerMapper | MLPMapper


@dataclass(frozen=True)
class Checkpoint:
    """A captioner's weights.

    mapper: the mapper's; language_model: the language model's, or none; described: the settings of its training.
    """

    file: Path
    mapper: dict[str, Tensor]
    language_model: dict[str, Tensor]
    described: dict[str, Any]

    def build_mapper(self, width: int) -> Mapper:
        """The mapper, frozen, of the sizes that its weights have. width: of the language model's embeddings.

        Raises UserError when the weights are no mapper's, or one's for another language model.
        """
        weights = self.mapper
        try:
            if "prefix_const" in weights:
                prefix_length, own_width = weights["prefix_const"].shape
                heads = int(self.described.get("heads", 8))
                if heads < 1 or own_width % heads:
                    raise ValueError(f"{heads} heads do not divide the width {own_width}")
                sizes = (
                    weights["linear.weight"].shape[1],
                    own_width,
                    prefix_length,
                    len(weights["linear.weight"]) // own_width,
                    len({key.split(".")[2] for key in weights if key.startswith("transformer.layers.")}),
                    heads,
                    len(weights["transformer.layers.0.mlp.fc1.weight"]),
                )
                mapper: Mapper = build_to_fit(lambda: TransformerMapper(*sizes), weights)
            else:
                own_width = int(self.described.get("width", width))
                out, feature_width = len(weights["model.2.weight"]), weights["model.0.weight"].shape[1]
                mapper = build_to_fit(lambda: MLPMapper(feature_width, own_width, out // own_width), weights)
            mapper.load_state_dict(weights)
        except (ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{self.file} holds no mapper of ClipCap's kinds that fits embeddings {width} wide"
            ) from error
        if own_width != width:
            raise UserError(
                f"the mapper of {self.file} makes embeddings {own_width} wide, the language model's are {width}; "
                "give the --language-model it was trained with"
            )
        return mapper.eval().requires_grad_(False)


def read_checkpoint(path: str) -> Checkpoint:
    """Read a captioner's checkpoint.

    path: a file (.pt as published, .safetensors), a training run's folder, or the name of a shipped one.
    Raises UserError for a missing or damaged file, for one without a mapper, and for weights that are not finite.
    """
    file = find_checkpoint(path)
    held = read_weights(file)
    weights = tensors_in(held)
    require_finite(file, weights)
    mapper = _with_prefix(weights, MAPPER_KEYS)
    if not mapper:
        raise UserError(f"{file} is no captioner's checkpoint: it has no weights named {MAPPER_KEYS}...")
    described = _metadata(file) if file.suffix == ".safetensors" else held.get("described", {})
    if not isinstance(described, dict):
        raise UserError(f"{file} is damaged: its description is no dict; train the captioner again")
    return Checkpoint(file, mapper, _with_prefix(weights, LM_KEYS), described)


def save_mapper(file: Path, mapper: nn.Module, described: dict[str, Any], half: bool = False) -> None:
    """The mapper alone, as safetensors. half: in fp16."""
    weights = {MAPPER_KEYS + name: tensor.detach().cpu() for name, tensor in mapper.state_dict().items()}
    weights = {name: (tensor.half() if half else tensor).contiguous() for name, tensor in weights.items()}
    save_atomically(file, weights, {"captioner": json.dumps(described)})


def _metadata(file: Path) -> Any:
    try:
        with safe_open(file, "pt") as opened:
            return json.loads((opened.metadata() or {}).get("captioner", "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged or no weight file; download it again") from error


def _with_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value.float() for key, value in weights.items() if key.startswith(prefix)}
