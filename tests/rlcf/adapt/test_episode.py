import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rlcf.adapt.episode import Episodes, Momentum
from rlcf.adapt.optimiser import AdamW
from tests.tools import copied, same

PLAIN = AdamW(lr=0.1, weight_decay=0.0)


@pytest.fixture
def net():
    """A linear layer and a batch norm in training mode: parameters, statistics and a counter that episodes change."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    inputs = torch.randn(8, 3)
    return SimpleNamespace(
        model=model,
        episodes=Episodes(dict(model.named_parameters()), PLAIN, steps=3, buffers=dict(model.named_buffers())),
        loss=lambda step: model(inputs).square().sum(),
        answer=lambda: model(inputs),
        state=lambda: copied(model),
    )


def scalar(value=0.0, steps=1, lr=1.0, **settings):
    """Episodes over one number: the gradient is the direction given to `push`, and Adam steps by lr against it."""
    p = nn.Parameter(torch.tensor([value]))
    episodes = Episodes({"p": p}, AdamW(lr=lr, weight_decay=0.0), steps=steps, **settings)
    return p, episodes, lambda direction=-1.0: episodes.run(lambda step: direction * p.sum(), lambda: p.item())


def fail(*_):
    raise ValueError("broken")


def test_weights_and_statistics_are_back_bit_for_bit_after_an_episode(net):
    before = net.state()
    answer = net.episodes.run(net.loss, lambda: net.state())
    assert same(net.state(), before)
    assert not any(torch.equal(answer[name], before[name]) for name in before)


@pytest.mark.parametrize("failing_step", [0, 2])
def test_weights_are_back_after_an_exception_in_the_loss(net, failing_step):
    before = net.state()
    with pytest.raises(ValueError, match="broken"):
        net.episodes.run(lambda step: fail() if step == failing_step else net.loss(step), net.answer)
    assert same(net.state(), before)


def test_weights_are_back_after_an_exception_in_the_answer(net):
    before = net.state()
    with pytest.raises(ValueError, match="broken"):
        net.episodes.run(net.loss, fail)
    assert same(net.state(), before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bad_step", [0, 2])
def test_a_loss_that_is_not_finite_gives_no_answer(net, bad_step, value):
    before = net.state()
    loss = lambda step: net.loss(step) * (value if step == bad_step else 1.0)  # noqa: E731
    assert net.episodes.run(loss, net.answer) is None
    assert same(net.state(), before)


def test_an_answer_that_is_not_finite_is_no_answer(net):
    before = net.state()
    assert net.episodes.run(net.loss, lambda: torch.tensor([0.0, math.nan])) is None
    assert same(net.state(), before)


def test_an_infinite_gradient_of_a_finite_loss_gives_no_answer():
    p = nn.Parameter(torch.tensor([0.0]))
    episodes = Episodes({"p": p}, PLAIN, steps=1)
    assert episodes.run(lambda step: p.sqrt().sum(), lambda: p.detach().clone()) is None
    assert p.item() == 0.0


def test_the_same_sample_gives_the_same_answer_bit_for_bit_whatever_came_between(net):
    first = net.episodes.run(net.loss, net.answer)
    net.episodes.run(lambda step: -net.loss(step), net.answer)
    net.episodes.run(lambda step: net.loss(step) * math.nan, net.answer)
    assert torch.equal(net.episodes.run(net.loss, net.answer), first)


def test_the_loss_hears_the_step_and_the_answer_has_no_graph():
    p, episodes, _ = scalar(steps=3)
    steps = []
    graph = episodes.run(lambda step: steps.append(step) or p.sum(), torch.is_grad_enabled)
    assert steps == [0, 1, 2] and graph is False


def test_adamw_moves_by_lr_a_step_against_a_constant_gradient():
    _, _, push = scalar(1.0, steps=3, lr=0.1)
    assert push(+5.0) == pytest.approx(0.7)
    assert push(-5.0) == pytest.approx(1.3)


def test_weight_decay_is_decoupled_from_the_gradient():
    p = nn.Parameter(torch.tensor([1.0]))
    episodes = Episodes({"p": p}, AdamW(lr=0.1, weight_decay=0.5), steps=1)
    assert episodes.run(lambda step: p.sum(), p.item) == pytest.approx(1.0 * (1 - 0.1 * 0.5) - 0.1)


def test_eps_of_adamw_damps_small_gradients():
    p = nn.Parameter(torch.tensor([0.0]))
    episodes = Episodes({"p": p}, AdamW(lr=1.0, weight_decay=0.0, eps=1e-3), steps=1)
    assert episodes.run(lambda step: 1e-3 * p.sum(), p.item) == pytest.approx(-0.5)


def test_a_frozen_parameter_among_the_tuned_ones_stays():
    p, q = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)
    episodes = Episodes({"p": p, "q": q}, PLAIN, steps=1)
    p_then, q_then = episodes.run(lambda step: (p * q).sum(), lambda: (p.item(), q.item()))
    assert p_then == pytest.approx(0.9) and q_then == 1.0


def test_scaled_fp16_gradients_step_like_plain_ones():
    _, _, push = scalar(1.0, steps=2, lr=0.1, precision="fp16")
    assert push(+3.0) == pytest.approx(0.8)


def test_an_fp16_gradient_that_overflows_skips_its_step():
    p = nn.Parameter(torch.tensor([0.0]))
    episodes = Episodes({"p": p}, PLAIN, steps=2, precision="fp16")
    assert episodes.run(lambda step: p.sqrt().sum() if step == 0 else p.sum(), p.item) == pytest.approx(-0.1)


def test_without_momentum_every_episode_starts_from_the_loaded_weights():
    p, episodes, push = scalar()
    assert [push() for _ in range(3)] == pytest.approx([1.0, 1.0, 1.0])
    assert p.item() == 0.0 and episodes.state_dict() == {} and start_of(episodes, p) == (0, 0.0)


# ---- an episode step by step ----


def start_of(episodes, p):
    """The number of the starting weights, and the weight itself as an episode begins."""
    with episodes.episode() as episode:
        return episode.start, p.item()


def test_within_an_episode_the_weights_are_the_starting_ones_until_it_adapts():
    p, episodes, push = scalar(2.0, momentum=Momentum(decay=0.5, every=1, weight=1.0))
    push()
    with episodes.episode() as episode:
        assert p.item() == 2.5
        assert episode.adapt(lambda step: -p.sum(), p.item) == pytest.approx(3.5)
        assert p.item() == pytest.approx(3.5)
    assert p.item() == 2.0


def test_an_episode_that_does_not_adapt_leaves_everything():
    p, episodes, push = scalar(2.0, momentum=Momentum(decay=0.5, every=1, weight=1.0))
    push()
    before = episodes.state_dict()
    with episodes.episode():
        pass
    assert p.item() == 2.0 and same(episodes.state_dict(), before) and episodes.updates == 1


def test_an_exception_within_an_episode_puts_the_loaded_weights_back(net):
    before = net.state()
    with pytest.raises(ValueError), net.episodes.episode() as episode:
        episode.adapt(net.loss, net.answer)
        assert not same(net.state(), before)
        fail()
    assert same(net.state(), before)


def test_run_is_one_whole_episode(net):
    answer = net.episodes.run(net.loss, net.answer)
    with net.episodes.episode() as episode:
        assert torch.equal(episode.adapt(net.loss, net.answer), answer)


def test_parameters_of_one_sample_start_at_its_own_values_and_the_loaded_ones_are_back(net):
    own, before = torch.full((2, 4), 0.5), net.state()
    with net.episodes.episode({"2.weight": own}) as episode:
        assert torch.equal(net.model[2].weight, own) and torch.equal(net.model[0].weight, before["0.weight"])
        assert episode.start == 0
        episode.adapt(net.loss, net.answer)
    assert same(net.state(), before) and torch.equal(own, torch.full((2, 4), 0.5))
    assert torch.equal(
        net.episodes.run(net.loss, lambda: net.model[2].weight.clone(), {"2.weight": own}).sign(), own.sign()
    )


def test_parameters_that_are_not_tuned_are_not_copied():
    p, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    episodes = Episodes({"p": p}, PLAIN, steps=1)

    def loss(step):
        with torch.no_grad():
            other.add_(1.0)
        return p.sum()

    episodes.run(loss, p.item)
    assert p.item() == 1.0 and other.item() == 2.0


# ---- momentum ----


def test_momentum_by_hand():
    # buffer: .5, .75 -> start .375; 1.0625, 1.21875 -> start .609375
    p, episodes, push = scalar(momentum=Momentum(decay=0.5, every=2, weight=0.5))
    assert [push() for _ in range(5)] == pytest.approx([1.0, 1.0, 1.375, 1.375, 1.609375])
    assert start_of(episodes, p) == (2, pytest.approx(0.609375)) and episodes.updates == 5


def test_outside_of_an_episode_the_loaded_weights_hold_also_with_momentum():
    p, _, push = scalar(2.0, momentum=Momentum(decay=0.5, every=1, weight=1.0))
    assert [(push(), p.item()) for _ in range(2)] == [(3.0, 2.0), (3.5, 2.0)]


def test_momentum_of_weight_one_starts_from_the_buffer_alone():
    p, episodes, push = scalar(2.0, momentum=Momentum(decay=0.75, every=1, weight=1.0))
    push()
    assert start_of(episodes, p) == (1, pytest.approx(0.75 * 2.0 + 0.25 * 3.0))
    assert start_of(episodes, p)[1] == episodes.state_dict()["buffer.p"].item()


def test_the_start_moves_only_every_nth_sample_and_has_a_new_number_then():
    p, episodes, push = scalar(momentum=Momentum(decay=0.5, every=3, weight=1.0))
    seen = []
    for _ in range(7):
        seen.append(start_of(episodes, p))
        push()
    numbers, values = zip(*seen, strict=True)
    assert numbers == (0, 0, 0, 1, 1, 1, 2)
    assert values[0] == values[2] == 0.0 < values[3] == values[5] < values[6]
    assert episodes.every == 3 and scalar()[1].every == 1


def test_leaving_the_episodes_forgets_the_momentum_buffer():
    p, episodes, push = scalar(momentum=Momentum(decay=0.5, every=1, weight=1.0))
    fresh = episodes.state_dict()
    with episodes:
        first = [push() for _ in range(3)]
        assert episodes.updates == 3
    assert same(episodes.state_dict(), fresh) and episodes.updates == 0 and start_of(episodes, p) == (0, 0.0)
    assert [push() for _ in range(3)] == first


def test_leaving_the_episodes_by_an_exception_forgets_the_momentum_buffer():
    p, episodes, push = scalar(momentum=Momentum(decay=0.5, every=1, weight=1.0))
    with pytest.raises(ValueError), episodes:
        push()
        fail()
    assert episodes.updates == 0 and start_of(episodes, p) == (0, 0.0)


def test_starts_after_a_reset_have_numbers_that_no_earlier_start_had():
    p, episodes, push = scalar(momentum=Momentum(decay=0.5, every=1, weight=1.0))
    push()
    earlier = start_of(episodes, p)[0]
    episodes.reset()
    push()
    assert start_of(episodes, p)[0] not in (0, earlier)


def test_an_episode_without_an_answer_does_not_flow_into_the_momentum_buffer():
    _, episodes, push = scalar(momentum=Momentum(decay=0.5, every=1, weight=1.0))
    push()
    before = episodes.state_dict()
    assert push(math.nan) is None
    assert same(episodes.state_dict(), before) and episodes.updates == 1


def test_an_exception_does_not_flow_into_the_momentum_buffer():
    p, episodes, push = scalar(momentum=Momentum(decay=0.5, every=1, weight=1.0))
    push()
    before = episodes.state_dict()
    with pytest.raises(ValueError):
        episodes.run(lambda step: -p.sum(), fail)
    assert same(episodes.state_dict(), before) and p.item() == 0.0 and start_of(episodes, p) == (1, pytest.approx(0.5))


def test_integer_buffers_follow_the_last_sample_through_the_momentum_buffer():
    p, count = nn.Parameter(torch.zeros(1)), torch.tensor(4)
    episodes = Episodes({"p": p}, PLAIN, 3, buffers={"count": count}, momentum=Momentum(0.5, 1, 1.0))
    episodes.run(lambda step: count.add_(1) * p.sum(), p.item)
    assert count.item() == 4
    with episodes.episode():
        assert count.item() == 7 and count.dtype == torch.int64


@pytest.mark.parametrize("done", range(7))
def test_a_run_continued_from_its_state_gives_the_uninterrupted_answers(done):
    directions = [-1.0, -2.0, 1.0, -1.0, math.nan, -3.0, -1.0, -1.0]
    momentum = Momentum(decay=0.3, every=3, weight=0.7)
    _, whole, push = scalar(0.3, 2, 0.1, momentum=momentum)
    first = [push(direction) for direction in directions[:done]]
    state = whole.state_dict()
    rest = [push(direction) for direction in directions[done:]]

    p, continued, push_on = scalar(0.3, 2, 0.1, momentum=momentum)
    continued.load_state_dict(state)
    assert [push_on(direction) for direction in directions[done:]] == rest
    assert same(continued.state_dict(), whole.state_dict())
    assert p.item() == pytest.approx(0.3) and len(first) == done


def test_an_episode_after_loading_a_state_starts_where_the_earlier_ones_went_on():
    _, earlier, push = scalar(2.0, momentum=Momentum(decay=0.5, every=1, weight=1.0))
    push()
    p, episodes, _ = scalar(2.0, momentum=Momentum(decay=0.5, every=1, weight=1.0))
    episodes.load_state_dict(earlier.state_dict())
    assert p.item() == 2.0 and start_of(episodes, p) == (1, 2.5)


def test_a_state_from_before_the_first_update_still_starts_from_the_loaded_weights():
    _, earlier, push = scalar(2.0, momentum=Momentum(decay=0.5, every=2, weight=1.0))
    push()
    p, episodes, push_on = scalar(2.0, momentum=Momentum(decay=0.5, every=2, weight=1.0))
    episodes.load_state_dict(earlier.state_dict())
    assert start_of(episodes, p) == (0, 2.0) and episodes.updates == 1
    push_on()
    assert start_of(episodes, p) == (1, 2.75)


def test_a_state_can_be_written_to_a_file_before_the_first_sample(tmp_path):
    _, episodes, _ = scalar(2.0, momentum=Momentum())
    save_file(episodes.state_dict(), tmp_path / "state.safetensors")
    assert load_file(tmp_path / "state.safetensors")["start.p"].item() == 2.0


def test_loading_an_empty_state_changes_nothing():
    p, episodes, _ = scalar(2.0, momentum=Momentum())
    episodes.load_state_dict({})
    assert episodes.updates == 0 and start_of(episodes, p) == (0, 2.0)


def test_moments_of_an_earlier_episode_are_forgotten():
    """A first Adam step is lr against the gradient's sign; with moments it would not be."""
    _, episodes, push = scalar(steps=1, lr=0.5)
    for direction in (-1.0, 100.0, -1.0):
        assert push(direction) == pytest.approx(-math.copysign(0.5, direction))
    assert len(episodes.optimiser.moments) == 1


@pytest.mark.parametrize("skip", [True, False])
def test_an_fp16_step_that_overflows_is_left_out_or_gives_the_episode_up(skip):
    p = nn.Parameter(torch.tensor([0.0]))
    episodes = Episodes({"p": p}, AdamW(lr=1.0, weight_decay=0.0), steps=2, precision="fp16")
    slopes = [3e38, 1.0]  # the first, times the scale, is more than fp32 holds; its loss is 0
    answer = episodes.run(lambda step: slopes[step] * p.sum(), lambda: p.item(), skip_overflow=skip)
    assert answer == (pytest.approx(-1.0) if skip else None)
    assert p.item() == 0.0
