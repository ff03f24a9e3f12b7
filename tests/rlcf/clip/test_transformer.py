import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import nn

from rlcf.clip.transformer import (
    encode_class_token,
    is_standard,
    pooled_block,
    pools_class_token,
    run_block,
)
from tests.tools import RESNET, VIT, build_clip

PIXELS = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_a_class_tokens_features_and_gradients_are_those_of_the_whole_tower(quick_gelu):
    tower = build_clip(quick_gelu=quick_gelu).visual.requires_grad_(True)
    assert pools_class_token(tower)
    whole, alone = tower(PIXELS), encode_class_token(tower, PIXELS)
    torch.testing.assert_close(alone, whole, atol=1e-5, rtol=1e-5)
    weights = list(tower.parameters())
    gradients = [torch.autograd.grad(features.square().sum(), weights) for features in (alone, whole)]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(encode_class_token(tower, PIXELS), whole, atol=1e-5, rtol=1e-5)


def test_layer_scale_and_the_order_of_the_last_normalisation_are_kept():
    for further in ({"ls_init_value": 0.3}, {"final_ln_after_pool": True}, {"no_ln_pre": True}):
        tower = build_clip(vision=VIT | further).visual
        assert pools_class_token(tower)
        torch.testing.assert_close(encode_class_token(tower, PIXELS), tower(PIXELS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "vision",
    [
        RESNET,
        VIT | {"pool_type": "avg"},
        VIT | {"attentional_pool": True, "attn_pooler_heads": 1},
        VIT | {"output_tokens": True},
        VIT | {"qk_norm": True},
    ],
)
def test_towers_that_pool_or_attend_in_another_way_run_as_they_are(vision):
    assert not pools_class_token(open_clip.CLIP(16, vision, {"width": 64, "heads": 1, "layers": 1}).visual)


def test_timms_towers_run_as_they_are():
    vision = {"timm_model_name": "vit_tiny_patch16_224", "image_size": 32, "timm_pool": "", "timm_proj": "linear"}
    model = build_clip(vision=vision)
    assert not isinstance(model.visual, VisionTransformer) and not pools_class_token(model.visual)


def test_only_clips_own_blocks_are_taken_apart():
    model = build_clip()
    assert is_standard(model.transformer) and is_standard(model.visual.transformer)
    assert not is_standard(nn.Module()) and not is_standard(build_clip(vision=RESNET).visual)


def test_a_causal_block_at_one_position_is_the_whole_block_there():
    model = build_clip()
    block, mask = model.transformer.resblocks[0], model.attn_mask[:9, :9]
    x, positions = torch.randn(4, 9, 64), torch.tensor([8, 0, 3, 5])
    expected = block(x, attn_mask=mask)[torch.arange(4), positions]
    torch.testing.assert_close(pooled_block(block, x, positions, causal=True), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", [QuickGELU, nn.GELU])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_wide_block_is_open_clips_with_a_graph_and_without(activation, precision):
    block = ResidualAttentionBlock(512, 8, act_layer=activation)
    nn.init.normal_(block.mlp.c_proj.bias)
    x, near = torch.randn(2, 5, 512), 1e-5 if precision == torch.float32 else 0.05
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        expected = block(x)
        torch.testing.assert_close(run_block(block, x), expected, atol=near, rtol=near)
        with torch.no_grad():
            torch.testing.assert_close(run_block(block, x), expected, atol=near, rtol=near)
