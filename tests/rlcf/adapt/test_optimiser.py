"""The fused AdamW has the numbers of torch.optim.AdamW, and what a GradScaler needs."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from rlcf.adapt.optimiser import AdamW, FusedAdamW

SETTINGS = AdamW(lr=3e-2, weight_decay=0.1, eps=1e-6)


def make_parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), ())]


def backward(parameters, step):
    """Gradients of the first two; the third has none."""
    sum((parameter * (step + 1.5)).sin().sum() for parameter in parameters[:2]).backward()


def take_steps(optimiser, parameters, count=4):
    for step in range(count):
        optimiser.zero_grad()
        backward(parameters, step)
        optimiser.step()
    return [parameter.detach().clone() for parameter in parameters]


def test_its_steps_are_those_of_torchs_adamw_bit_for_bit_and_so_are_those_after_a_reset():
    theirs, ours = make_parameters(), make_parameters()
    hyper = {"lr": SETTINGS.lr, "weight_decay": SETTINGS.weight_decay, "eps": SETTINGS.eps}
    expected = take_steps(torch.optim.AdamW(theirs, **hyper, fused=True), theirs)
    optimiser = FusedAdamW(ours, SETTINGS)
    for _ in range(2):
        with torch.no_grad():
            for parameter, value in zip(ours, make_parameters(), strict=True):
                parameter.copy_(value)
        optimiser.reset()
        found = take_steps(optimiser, ours)
        assert all(map(torch.equal, found, expected))
    assert len(optimiser.moments) == 2 and torch.equal(found[2], make_parameters()[2])


@pytest.mark.parametrize("overflows", [False, True])
def test_a_grad_scaler_unscales_gradients_and_leaves_out_steps_that_overflow(overflows):
    plain, scaled = make_parameters()[:2], make_parameters()[:2]
    before = [parameter.detach().clone() for parameter in scaled]
    backward(plain, 0)
    FusedAdamW(plain, SETTINGS).step()
    optimiser, scaler = FusedAdamW(scaled, SETTINGS), torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = sum((parameter * 1.5).sin().sum() for parameter in scaled) * (float("inf") if overflows else 1.0)
    scaler.scale(loss).backward()
    scaler.step(optimiser)
    scaler.update()
    for value, expected in zip(scaled, before if overflows else plain, strict=True):
        torch.testing.assert_close(value.detach(), expected.detach(), rtol=1e-6, atol=1e-6)
    assert scaler.get_scale() == (512.0 if overflows else 1024.0)


def test_a_step_imports_no_compiler():
    code = (
        "import sys, torch; from rlcf.adapt.optimiser import AdamW, FusedAdamW\n"
        "p = torch.nn.Parameter(torch.ones(2)); optimiser = FusedAdamW([p], AdamW(0.1)); p.sum().backward()\n"
        "optimiser.step(); optimiser.reset(); assert p.tolist() != [1, 1] and 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
