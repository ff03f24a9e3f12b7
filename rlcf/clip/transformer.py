"""The steps of open_clip's transformer blocks as functions, to leave out those that a feature does not depend on."""

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from rlcf.linear import linear


def is_standard(transformer: Any) -> bool:
    """True if all blocks of an open_clip transformer are CLIP's own, and its input is (N, L, width).

    Such a block is a layer norm, self-attention, a layer norm and an MLP.
    """
    blocks = getattr(transformer, "resblocks", ())
    return (
        bool(blocks)
        and getattr(transformer, "batch_first", False)
        and all(
            type(block) is ResidualAttentionBlock
            and type(block.attn) is nn.MultiheadAttention
            and block.attn.in_proj_weight is not None
            and block.attn.bias_k is None
            and not hasattr(block, "ln_1_kv")
            for block in blocks
        )
    )


QUICK = 1.702
"""QuickGELU(x) = x * sigmoid(QUICK * x) (CLIP, OpenAI's weights), which is SiLU(QUICK * x) / QUICK."""


def run_block(block: Any, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The output of a block. x: (N, L, width), its input; mask: as `attend`'s. Returns (N, L, width)."""
    return finish(block, x, attend(block, *project(block, x), mask))


def project(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first layer norm of a block, and the projection to queries, keys and values.

    x: (..., width), the block's input. Returns three tensors (..., width).
    """
    attention = block.attn
    query, key, value = linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    return query, key, value


def attend(block: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """The attention of a block, before its output projection.

    query: (N, Q, width). key, value: (N, K, width).
    mask: broadcastable to (N, heads, Q, K); bool, False for the keys that a query does not look at, or added to the
    scores.
    Returns (N, Q, width), all heads side by side.
    """
    # (N, heads, Q or K, width / heads) each
    query, key, value = (part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a block after `attend`: output projection, MLP, and both residual connections.

    x: (..., width), the block's input. attended: (..., width), from `attend`. Returns (..., width).
    QuickGELU is computed as a SiLU: the MLP's input is multiplied by `QUICK`, and its output divided by it.
    """
    scaled = not (type(block.ls_1) is type(block.ls_2) is nn.Identity)
    if scaled or torch.is_autocast_enabled(x.device.type):
        x = x + block.ls_1(block.attn.out_proj(attended))
        return x + block.ls_2(block.mlp(block.ln_2(x)))
    x = add_linear(x, attended, block.attn.out_proj)
    into, activation, normalised = block.mlp.c_fc, block.mlp.gelu, block.ln_2(x)
    if type(activation) is not QuickGELU:
        return add_linear(x, activation(linear(normalised, into.weight, into.bias)), block.mlp.c_proj)
    hidden = linear(normalised * QUICK, into.weight, into.bias * QUICK)  # (..., 4 * width)
    return add_linear(x, F.silu(hidden, inplace=not torch.is_grad_enabled()), block.mlp.c_proj, 1 / QUICK)


def add_linear(x: Tensor, hidden: Tensor, layer: nn.Linear, factor: float = 1.0) -> Tensor:
    """x + factor * hidden @ weight.T + bias, with the weight and the bias of a layer.

    x: (..., D); hidden: (..., C). Returns (..., D), a new tensor.
    """
    return torch.add(x, linear(hidden, layer.weight, layer.bias / factor), alpha=factor)


def pooled_block(block: Any, x: Tensor, positions: Tensor, causal: bool) -> Tensor:
    """The output of a block at one position of each sequence; the other positions give keys and values alone.

    x: (N, L, width), the block's input. positions: (N,). causal: no position looks at later ones.
    Returns (N, width).
    """
    width, attention, rows = x.shape[-1], block.attn, torch.arange(len(x), device=x.device)  # rows: (N,)
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    normalised = block.ln_1(x)  # (N, L, width)
    query = linear(normalised[rows, positions], weight[:width], bias[:width])  # (N, width)
    key, value = linear(normalised, weight[width:], bias[width:]).chunk(2, dim=-1)  # (N, L, width) each
    mask = None
    if causal:
        mask = (torch.arange(x.shape[1], device=x.device) <= positions.unsqueeze(-1))[:, None, None]  # (N, 1, 1, L)
    attended = attend(block, query.unsqueeze(1), key, value, mask).squeeze(1)  # (N, width)
    return finish(block, x[rows, positions], attended)  # (N, width)


def pools_class_token(tower: Any) -> bool:
    """True if an image tower is a ViT of CLIP's own blocks whose feature is read at its class token."""
    return (
        type(tower) is VisionTransformer
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and is_standard(tower.transformer)
    )


def encode_class_token(tower: Any, pixels: Tensor) -> Tensor:
    """The image features of a tower for which `pools_class_token` is True, not normalised.

    The last block computes the class token alone. pixels: (N, 3, H, W), normalised. Returns (N, D).
    """
    patches = tower.conv1(pixels).flatten(2).transpose(1, 2)  # (N, L - 1, width)
    token = tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)  # (N, 1, width)
    x = torch.cat([token, patches], dim=1) + tower.positional_embedding.to(patches.dtype)  # (N, L, width)
    x = tower.ln_pre(tower.patch_dropout(x))  # (N, L, width)
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x = run_block(block, x)  # (N, L, width)
    x = pooled_block(last, x, torch.zeros(len(x), dtype=torch.long, device=x.device), causal=False)  # (N, width)
    x = tower.ln_post(x)  # (N, width)
    return x if tower.proj is None else x @ tower.proj  # (N, D)
