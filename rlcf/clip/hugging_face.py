"""CLIP and SigLIP folders as `transformers` writes them, as open_clip's towers."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
import transformers
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rlcf.clip.text_tower import try_tokenizer
from rlcf.clip.weights import build_to_fit, read_weights, require_finite, tensors_in
from rlcf.errors import UserError
from rlcf.inputs.json_files import read_json

CONFIGS = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}
"""model_type of a config.json -> its class, which knows the defaults."""
TANH, QUICK = ("gelu_pytorch_tanh", "gelu_new"), "quick_gelu"
BLOCK = {
    "layer_norm1": ("ln_1", "norm1"),
    "layer_norm2": ("ln_2", "norm2"),
    "mlp.fc1": ("mlp.c_fc", "mlp.fc1"),
    "mlp.fc2": ("mlp.c_proj", "mlp.fc2"),
    "self_attn.out_proj": ("attn.out_proj", "attn.proj"),
}
"""A block's layer in `transformers` -> in open_clip, in timm."""


def load_hugging_face(folder: Path) -> tuple[nn.Module, Any]:
    """The model and the tokenizer of a folder for which `is_hugging_face` is True; its weights may be in several files.

    Raises UserError for a config that is damaged or of another kind of towers, for weights that are missing or do not
    fit, and for a tokenizer that cannot be loaded.
    """
    described = read_json(folder / "config.json")
    try:
        config = CONFIGS[described["model_type"]].from_dict(described)
        towers = _clip if config.model_type == "clip" else _siglip
        build, renamed = towers(config)
    except Exception as error:  # values of a wrong kind raise many
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{folder / 'config.json'} describes no CLIP or SigLIP that can be built ({said})") from error
    weights = _weights(folder)
    require_finite(folder, weights)
    layers = config.text_config.num_hidden_layers + config.vision_config.num_hidden_layers
    if layers > len(weights):
        raise UserError(f"the weights in {folder} do not fit its config.json, which has {layers} layers")
    try:
        named = renamed(weights)
        model = build_to_fit(build, named)
        model.load_state_dict(named)
    except Exception as error:  # sizes that do not fit raise many kinds of errors
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"the weights in {folder} do not fit its config.json ({said})") from error
    open_clip.model.set_model_preprocess_cfg(model, _preprocess(folder, config))
    return model, _tokenizer(folder, config)


def _weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder, from one file or from those that an index names."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return tensors_in(read_weights(folder / name))
        index = folder / f"{name}.index.json"
        if index.is_file():
            held = read_json(index)
            files = held.get("weight_map") if isinstance(held, dict) else None
            if not isinstance(files, dict) or not all(isinstance(f, str) and Path(f).name == f for f in files.values()):
                raise UserError(f"{index} names no weight files; download the folder again")
            parts = [tensors_in(read_weights(folder / file)) for file in sorted(set(files.values()))]
            return {key: tensor for part in parts for key, tensor in part.items()}
    raise UserError(f"{folder} has a config.json but no weights (model.safetensors, pytorch_model.bin, or their index)")


Build = Callable[[], nn.Module]
Rename = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def _clip(config: Any) -> tuple[Build, Rename]:
    """How a CLIP is built, and its weights by open_clip's names."""
    text, vision = config.text_config, config.vision_config
    if text.hidden_act != vision.hidden_act:
        raise ValueError(f"the towers have the activations {text.hidden_act} and {vision.hidden_act}")
    highest = text.eos_token_id in (2, text.vocab_size - 1)  # 2 in old configs, which meant the highest id
    pooling = {"pool_type": "argmax"} if highest else {"pool_type": "eos", "eos_id": text.eos_token_id}
    settings = {
        "embed_dim": config.projection_dim,
        "quick_gelu": text.hidden_act == QUICK,
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            **_shape(vision),
        },
        "text_cfg": {**_text(text), **pooling},
    }

    def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = {
            "logit_scale": weights["logit_scale"].reshape(()),
            "text_projection": weights["text_projection.weight"].mT.contiguous(),
            "visual.class_embedding": weights["vision_model.embeddings.class_embedding"].flatten(),
            "visual.conv1.weight": weights["vision_model.embeddings.patch_embedding.weight"],
            "visual.positional_embedding": weights["vision_model.embeddings.position_embedding.weight"],
            "visual.proj": weights["visual_projection.weight"].mT.contiguous(),
        }
        for part in ("weight", "bias"):
            named[f"visual.ln_pre.{part}"] = weights[f"vision_model.pre_layrnorm.{part}"]  # spelt so
            named[f"visual.ln_post.{part}"] = weights[f"vision_model.post_layernorm.{part}"]
        blocks = _blocks(weights, "vision_model", vision.num_hidden_layers, 0)
        named |= {f"visual.transformer.resblocks.{name}": tensor for name, tensor in blocks}
        return named | _text_weights(weights, text)

    return lambda: open_clip.CLIP(**settings), renamed


def _siglip(config: Any) -> tuple[Build, Rename]:
    """How a SigLIP is built, and its weights by the names of open_clip's text tower and timm's image tower."""
    text, vision = config.text_config, config.vision_config
    if not getattr(vision, "vision_use_head", True):
        raise ValueError("the image tower has no pooling head")

    def build() -> nn.Module:
        unused = {"layers": 1, "width": 64, "head_width": 64, "patch_size": 16, "image_size": 16}
        settings = {**_text(text), "no_causal_mask": True, "pool_type": "last", "proj_bias": True}
        width = text.projection_size or text.hidden_size
        model = open_clip.CustomTextCLIP(
            width, unused, settings, quick_gelu=text.hidden_act == QUICK, init_logit_bias=0
        )
        model.visual = SiglipImageTower(vision)
        return model

    def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        old, new = "vision_model.", "visual.trunk."
        named = {name: weights[name].reshape(()) for name in ("logit_scale", "logit_bias")}
        named[f"{new}pos_embed"] = weights[f"{old}embeddings.position_embedding.weight"][None]
        named[f"{new}attn_pool.latent"] = weights[f"{old}head.probe"]
        pairs = {"embeddings.patch_embedding": "patch_embed.proj", "post_layernorm": "norm"}
        pairs |= {"head.attention.out_proj": "attn_pool.proj", "head.layernorm": "attn_pool.norm"}
        pairs |= {f"head.mlp.fc{i}": f"attn_pool.mlp.fc{i}" for i in (1, 2)}
        for part in ("weight", "bias"):
            named |= {f"{new}{theirs}.{part}": weights[f"{old}{ours}.{part}"] for ours, theirs in pairs.items()}
            query, *rest = weights[f"{old}head.attention.in_proj_{part}"].chunk(3)
            named[f"{new}attn_pool.q.{part}"], named[f"{new}attn_pool.kv.{part}"] = query, torch.cat(rest)
            named[f"text.text_projection.{part}"] = weights[f"text_model.head.{part}"]
        blocks = _blocks(weights, "vision_model", vision.num_hidden_layers, 1)
        named |= {f"{new}blocks.{name}": tensor for name, tensor in blocks}
        return named | {f"text.{name}": tensor for name, tensor in _text_weights(weights, text).items()}

    return build, renamed


class SiglipImageTower(nn.Module):
    """timm's ViT with attention pooling, as open_clip's models hold an image tower. config: of `transformers`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        side = config.image_size
        self.image_size = (side, side) if isinstance(side, int) else tuple(side)
        self.trunk = VisionTransformer(
            img_size=self.image_size,
            patch_size=config.patch_size,
            embed_dim=config.hidden_size,
            depth=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            mlp_ratio=_ratio(config),
            num_classes=0,
            class_token=False,
            global_pool="map",
            norm_layer=partial(nn.LayerNorm, eps=config.layer_norm_eps),
            act_layer="gelu_tanh" if config.hidden_act in TANH else config.hidden_act,
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (N, 3, H, W), normalised. Returns (N, D)."""
        return self.trunk(pixels)


def _text(config: Any) -> dict[str, Any]:
    """open_clip's settings of a text tower."""
    size = {"context_length": config.max_position_embeddings, "vocab_size": config.vocab_size}
    return {**size, "heads": config.num_attention_heads, **_shape(config)}


def _shape(config: Any) -> dict[str, Any]:
    """open_clip's settings of a transformer."""
    if config.hidden_act not in (QUICK, "gelu", *TANH):
        raise ValueError(f"the activation {config.hidden_act}")
    approximate = {"act_kwargs": {"approximate": "tanh"}} if config.hidden_act in TANH else {}
    norm = {"norm_kwargs": {"eps": config.layer_norm_eps}}
    return {
        "width": config.hidden_size,
        "layers": config.num_hidden_layers,
        "mlp_ratio": _ratio(config),
        **norm,
        **approximate,
    }


def _ratio(config: Any) -> float:
    """The width of the MLP by that of the transformer, so that its product with the latter, cut, is the former."""
    return (config.intermediate_size + 0.5) / config.hidden_size


def _text_weights(weights: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    named = {
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": weights["text_model.embeddings.position_embedding.weight"],
    }
    for part in ("weight", "bias"):
        named[f"ln_final.{part}"] = weights[f"text_model.final_layer_norm.{part}"]
    blocks = _blocks(weights, "text_model", config.num_hidden_layers, 0)
    return named | {f"transformer.resblocks.{name}": tensor for name, tensor in blocks}


def _blocks(weights: Mapping[str, Tensor], tower: str, layers: int, theirs: int) -> Iterator[tuple[str, Tensor]]:
    """The weights of a tower's blocks by their names behind the blocks' list. theirs: 0 for open_clip's, 1 for timm's.

    Queries, keys and values are one matrix there.
    """
    inside = ("attn.in_proj_", "attn.qkv.")[theirs]
    for number in range(layers):
        old = f"{tower}.encoder.layers.{number}."
        for part in ("weight", "bias"):
            for ours, names in BLOCK.items():
                yield f"{number}.{names[theirs]}.{part}", weights[f"{old}{ours}.{part}"]
            thirds = [weights[f"{old}self_attn.{which}_proj.{part}"] for which in "qkv"]
            yield f"{number}.{inside}{part}", torch.cat(thirds)


def _preprocess(folder: Path, config: Any) -> dict[str, Any]:
    """open_clip's settings of the input: CLIP's images are cropped, SigLIP's are squashed."""
    places = [folder / f"{name}_config.json" for name in ("preprocessor", "processor")]
    file = next((place for place in places if place.is_file()), places[0])
    held = read_json(file) if file.is_file() else {}
    held = held.get("image_processor", held) if isinstance(held, dict) else held
    given = {}
    for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
        numbers = held.get(theirs) if isinstance(held, dict) else 0
        if numbers is None:
            continue
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise UserError(f"{file} has no {theirs} of three numbers; download the folder again")
        given[ours] = numbers
    if 0 in given.get("std", []):
        raise UserError(f"{file} has an image_std of 0; download the folder again")
    siglip = config.model_type == "siglip"
    half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "resize_mode": "squash"} if siglip else {}
    size = {"size": config.vision_config.image_size}
    return dict(merge_preprocess_dict(vars(PreprocessCfg()), {**half, **given, **size}))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e6


def _tokenizer(folder: Path, config: Any) -> Any:
    """The folder's tokenizer; OpenAI's own for a CLIP of its vocabulary."""
    text = config.text_config
    if config.model_type == "clip" and text.vocab_size == 49408:
        return open_clip.SimpleTokenizer(context_length=text.max_position_embeddings)
    clean = "canonicalize" if config.model_type == "siglip" else "whitespace"
    try:
        tokenizer = HFTokenizer(
            str(folder), text.max_position_embeddings, clean, local_files_only=True, trust_remote_code=False
        )
        try_tokenizer(tokenizer)
    except Exception as error:  # transformers raises many kinds
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{folder} holds a tokenizer that cannot be loaded ({said}); download all its files") from error
    return tokenizer
