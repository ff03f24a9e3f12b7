"""open_clip's transformer blocks taken apart, to compute only what a feature depends on."""

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn


def is_standard(transformer: Any) -> bool:
    """Whether all its blocks are CLIP's: normalise, self-attention, normalise, MLP; batch first."""
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


def project(block: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a block's input. x: (..., width). Returns three (..., width)."""
    attention = block.attn
    query, key, value = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=-1)
    return query, key, value


def attend(block: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention over all heads.

    query: (N, Q, width); key, value: (N, K, width); mask: bool, broadcastable to (N, heads, Q, K), False where a query
    does not look. Returns (N, Q, width).
    """
    query, key, value = (part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


def finish(block: Any, x: Tensor, attended: Tensor) -> Tensor:
    """What a block makes of its input and of what attention found. x, attended: (..., width)."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def pooled_block(block: Any, x: Tensor, positions: Tensor, causal: bool) -> Tensor:
    """The block's output at one position of each sequence; the others are only looked at.

    x: (N, L, width); positions: (N,). Returns (N, width).
    """
    width, attention, rows = x.shape[-1], block.attn, torch.arange(len(x), device=x.device)
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    normalised = block.ln_1(x)
    query = F.linear(normalised[rows, positions], weight[:width], bias[:width])
    key, value = F.linear(normalised, weight[width:], bias[width:]).chunk(2, dim=-1)
    mask = None
    if causal:
        mask = (torch.arange(x.shape[1], device=x.device) <= positions.unsqueeze(-1))[:, None, None]
    attended = attend(block, query.unsqueeze(1), key, value, mask).squeeze(1)
    return finish(block, x[rows, positions], attended)


def pools_class_token(tower: Any) -> bool:
    """Whether an image tower is a ViT whose feature is its class token's."""
    return (
        type(tower) is VisionTransformer
        and tower.attn_pool is None
        and tower.pool_type == "tok"
        and not tower.output_tokens
        and is_standard(tower.transformer)
    )


def encode_class_token(tower: Any, pixels: Tensor) -> Tensor:
    """The features of a tower that `pools_class_token`; its last block computes the class token alone.

    pixels: (N, 3, H, W). Returns (N, D).
    """
    patches = tower.conv1(pixels).flatten(2).transpose(1, 2)
    token = tower.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
    x = torch.cat([token, patches], dim=1) + tower.positional_embedding.to(patches.dtype)
    x = tower.ln_pre(tower.patch_dropout(x))
    *blocks, last = tower.transformer.resblocks
    for block in blocks:
        x = block(x)
    x = pooled_block(last, x, torch.zeros(len(x), dtype=torch.long, device=x.device), causal=False)
    x = tower.ln_post(x)
    return x if tower.proj is None else x @ tower.proj
