"""The policy: the mapper that is tuned, what it changes in itself, and how likely captions are."""

import pytest
import torch

from caption.clip_model import MapperPolicy
from caption.objectives import masked_mean
from rlcf.adapt.objectives import policy_gradient
from rlcf.errors import UserError


def likelihood(policy, prefix, texts, score_padding=False):
    """(N, K), the mean over each caption's tokens."""
    return masked_mean(*policy.log_likelihood(prefix, texts, score_padding))


def test_the_mapper_requires_gradients_within_with_alone(policy):
    features = torch.randn(1, 128)
    assert not policy.prefix(features).requires_grad
    with policy:
        policy.prefix(features).sum().backward()
        assert all(p.requires_grad and p.grad is not None for p in policy.tuned.values())
        assert not policy.zero_shot(features).requires_grad and not policy.answer(features).requires_grad
    assert not any(p.requires_grad or p.grad is not None for p in policy.tuned.values())


def test_gradients_are_undone_also_when_with_is_left_by_an_error(policy):
    with pytest.raises(ZeroDivisionError), policy:
        raise ZeroDivisionError
    assert not any(p.requires_grad for p in policy.tuned.values())


def test_padding_counts_only_when_asked_for(policy):
    texts = ["a dog", "a cat to the left of an owl"]
    prefix = policy.zero_shot(torch.randn(1, 128))
    alone = [likelihood(policy, prefix, [[text]])[0, 0] for text in texts]
    (together,) = likelihood(policy, prefix, [texts])
    torch.testing.assert_close(together, torch.stack(alone), atol=2e-5, rtol=1e-4)
    (padded,) = likelihood(policy, prefix, [texts], score_padding=True)
    torch.testing.assert_close(padded[1], alone[1], atol=2e-5, rtol=1e-4)
    assert abs(padded[0] - alone[0]) > 1e-3


def test_padding_of_other_images_captions_never_counts(policy):
    texts = [["a dog", "a cat above an owl"], ["a cat to the left of an owl", "a dog"]]
    prefix = torch.randn(2, 3, policy.lm.width, generator=torch.Generator().manual_seed(0))
    for padded in (False, True):
        alone = [likelihood(policy, prefix[i : i + 1], texts[i : i + 1], padded) for i in range(2)]
        together = likelihood(policy, prefix, texts, padded)
        torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_reinforce_makes_a_caption_with_a_high_reward_more_likely(policy):
    texts, features = ["a dog above an owl", "a cat"], torch.nn.functional.normalize(torch.randn(1, 128), dim=-1)
    advantage = torch.tensor([[0.5, -0.5]])
    with policy:
        optimiser = torch.optim.SGD(policy.tuned.values(), lr=1e-2)
        before = likelihood(policy, policy.prefix(features), [texts])
        policy_gradient(before, advantage).backward()
        optimiser.step()
        after = likelihood(policy, policy.answer(features), [texts])
    assert (after[0, 0] - after[0, 1]) > (before[0, 0] - before[0, 1])


def test_features_of_another_width_than_the_mapper_are_told(policy):
    (tiny,) = policy.mappers
    tiny.feature_width = 64
    with pytest.raises(
        UserError, match=r"features of demo-student are 128 wide, the mapper takes 64; give the --student .*\(a CLIP\)"
    ):
        MapperPolicy(policy.clip, tiny, policy.lm, "a CLIP").encode(torch.zeros(1, 3, 64, 64))
