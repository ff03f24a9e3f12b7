import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlcf.linear import FEW, LARGE, Linear, has_kernel, linear, use_linear, weight_gradient

WIDE, NARROW = (1024, 512), (512, 1024)  # (D, C)
with_kernel = pytest.mark.skipif(not has_kernel(torch.ones(1, 1)), reason="this torch has no oneDNN")


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [WIDE, NARROW])
@pytest.mark.parametrize("rows", [(), (0,), (3,), (2, 5), (2, FEW)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_large_layer_and_its_gradients_are_torchs(shape, rows, bias):
    weight, x = random(*shape), random(*rows, shape[1], seed=1)
    given = [x, weight, random(shape[0], seed=2) if bias else None]
    upstream = random(*rows, shape[0], seed=3)
    results = []
    for function in (linear, F.linear):
        leaves = [None if tensor is None else tensor.clone().requires_grad_() for tensor in given]
        made = function(*leaves)
        made.backward(upstream)
        with torch.no_grad():
            alone = function(*leaves)
        results.append([made, alone, *(leaf.grad for leaf in leaves if leaf is not None)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", [WIDE, NARROW])
def test_inputs_need_not_be_contiguous(shape):
    weight, x = random(*shape).requires_grad_(), random(3, shape[1], 4).mT
    upstream = random(3, shape[0], 4, seed=1).mT
    expected = torch.autograd.grad(F.linear(x, weight), weight, upstream)[0]
    ours = torch.autograd.grad(linear(x, weight), weight, upstream)[0]
    torch.testing.assert_close(ours, expected, atol=1e-3, rtol=1e-4)
    assert ours.is_contiguous()  # as the weight is: the optimiser's kernel reads both in one order


@with_kernel
def test_a_bias_alone_may_be_tuned():
    bias = torch.zeros(WIDE[0], requires_grad=True)
    linear(random(3, WIDE[1]), random(*WIDE), bias).sum().backward()
    assert torch.equal(bias.grad, torch.full_like(bias, 3.0))


@with_kernel
@pytest.mark.parametrize(("of_x", "of_weight"), [(True, False), (False, True)])
def test_nothing_is_held_for_a_gradient_that_nobody_asks_for(of_x, of_weight):
    held = []

    def hold(tensor):
        held.append(tuple(tensor.shape))
        return tensor

    x, weight = random(7, 512).requires_grad_(of_x), random(*WIDE).requires_grad_(of_weight)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        made = linear(x, weight)
    assert held == [WIDE] if of_x else [(7, 512)]
    made.sum().backward()
    assert (x.grad is not None, weight.grad is not None) == (of_x, of_weight)


@with_kernel
def test_torchs_own_kernel_takes_what_is_small_or_not_fp32():
    def kernel(weight, dtype=torch.float32):
        return type(linear(torch.ones(2, weight.shape[1], dtype=dtype), weight.to(dtype)).grad_fn).__name__

    large, small = (nn.Parameter(torch.ones(rows, 512)) for rows in (LARGE // 512, LARGE // 512 - 1))
    assert kernel(large) == "_LinearBackward"
    assert "_LinearBackward" not in (kernel(small), kernel(large, torch.float64), kernel(large, torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        made = linear(torch.ones(2, 512), large)
    assert made.dtype == torch.bfloat16
    assert not has_kernel(torch.ones(1, 1, device="meta"))


@pytest.mark.parametrize("rows", [1, FEW - 1, FEW])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 32), (32, 64), (48, 48)])
def test_the_gradient_of_a_weight_is_the_product_by_either_kernel(rows, outputs, inputs):
    grad, x = random(rows, outputs), random(rows, inputs, seed=1)
    torch.testing.assert_close(weight_gradient(grad, x), grad.T @ x, atol=1e-4, rtol=1e-4)


def test_a_models_linear_layers_are_turned_and_nothing_else():
    model = nn.Sequential(nn.Linear(512, 1024), nn.GELU(), nn.MultiheadAttention(8, 2), nn.Linear(1024, 512))
    names, x = list(model.state_dict()), random(2, 512)
    expected = model[3](model[1](model[0](x)))
    use_linear(model)
    assert [type(model[place]) for place in (0, 1, 3)] == [Linear, nn.GELU, Linear]
    assert type(model[2].out_proj) not in (nn.Linear, Linear) and list(model.state_dict()) == names
    torch.testing.assert_close(model[3](model[1](model[0](x))), expected, atol=1e-4, rtol=1e-4)
