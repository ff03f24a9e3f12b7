"""Episodes: what they leave behind, and several at once, whose captions are those of one image at a time."""

import pytest
import torch

from caption import clip_model
from caption.objectives import OBJECTIVES, rlcf
from rlcf.adapt.groups import GroupGivenUp, side_by_side
from rlcf.adapt.rewards import RewardFunction
from rlcf.errors import UserError
from tests.tools import break_off_after, copied, in_processes, same, stop_after_records

from .conftest import random_mapper


def words(record):
    candidates = [step["candidates"] for step in record["steps"]]
    return [record["id"], record["zero_shot"], record["adapted"], record["status"], candidates]


def numbers(record):
    rewards = [record.get(f"{name}_reward", 0.0) for name in ("zero_shot", "adapted")]
    return rewards + [value for step in record["steps"] for value in (*step["rewards"], *step["advantages"])]


def objective(monkeypatch, function):
    """Let the method rlcf have another objective."""
    monkeypatch.setitem(OBJECTIVES, "rlcf", function)


# ---- one image ----


def test_weights_are_put_back_and_the_language_model_is_never_touched(make_captioner, view):
    captioner = make_captioner()
    mappers, lm = captioner.policy.mappers, captioner.policy.lm.model
    before, frozen, student = copied(mappers), copied(lm), copied(captioner.policy.clip.model)
    (answer,) = captioner.adapt([(0, view)])
    assert answer.finite and len(answer.trace) == 2
    assert same(copied(mappers), before) and same(copied(lm), frozen)
    assert same(copied(captioner.policy.clip.model), student)
    for model in (mappers, lm):
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_an_episode_that_is_not_finite_keeps_the_caption_before(make_captioner, view, monkeypatch):
    def spoilt(config, sampled, seen):
        step = rlcf(config, sampled, seen)
        return step._replace(loss=step.loss * torch.nan)

    objective(monkeypatch, spoilt)
    (answer,) = make_captioner().adapt([(0, view)])
    assert not answer.finite and answer.adapted == answer.zero_shot
    assert answer.adapted_reward == answer.zero_shot_reward


def test_weights_that_blow_up_keep_the_caption_before(make_captioner, view):
    (answer,) = make_captioner(lr=1e30, steps=3).adapt([(0, view)])
    assert not answer.finite and answer.adapted == answer.zero_shot


def test_captions_that_are_left_out_do_not_move_the_mapper(make_captioner, view, monkeypatch):
    """The mapper's gradient is that of the caption that is scored; without any it is 0."""
    moved, answer = [], clip_model.MapperPolicy.answer

    def watch(policy, features):
        moved.append([p.detach().clone() for p in policy.tuned.values()])
        return answer(policy, features)

    monkeypatch.setattr(clip_model.MapperPolicy, "answer", watch)
    nothing = RewardFunction(lambda images, texts: [None] * len(texts))
    (found,) = make_captioner(rewards=[nothing], weight_decay=0.0, steps=1).adapt([(0, view)])
    assert found.finite and found.zero_shot_reward is None and found.adapted_reward is None
    assert found.trace[0].rewards == [[None] * 3] and found.trace[0].loss == 0.0
    assert all(torch.equal(a, b) for a, b in zip(moved[0], random_mapper().parameters(), strict=True))

    some = RewardFunction(lambda images, texts: [1.0, None, 2.0][: len(texts)])
    make_captioner(rewards=[some], weight_decay=0.0, steps=1).adapt([(0, view)])
    assert not all(torch.equal(a, b) for a, b in zip(moved[1], random_mapper().parameters(), strict=True))


def test_a_method_without_gradients_clones_no_weights(make_captioner, view):
    captioner = make_captioner(rewards=[], method="zeroshot", images_at_once=4)
    assert captioner.episodes is None and len(captioner.policy.mappers) == 1
    answers = captioner.adapt([(0, view), (1, view)])
    assert all(answer.zero_shot == answer.adapted and answer.trace == [] for answer in answers)


# ---- several images at once ----


@pytest.mark.parametrize(
    "flags",
    [
        ["--lr", "1e-2"],
        ["--lr", "1e-2", "--score-padding"],
        ["--lr", "1e-2", "--baseline", "all", "--divide-by-std"],
        ["--sampling", "nucleus"],
        ["--method", "zeroshot"],
        ["--reward", "demo-reward", "demo-student"],
    ],
)
def test_several_images_at_once_have_the_captions_of_one_at_a_time(flags, caption):
    alone, together = (
        caption(*flags, "--images-at-once", count, output=count).records()
        for count in ("1", "3")  # 3, 3, then 2
    )
    assert [words(record) for record in together] == [words(record) for record in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-3)


def test_several_images_are_generated_for_in_one_go_with_no_more_mappers_than_images(caption, monkeypatch):
    prefixes, search = [], clip_model.MapperPolicy.sample

    def sample(policy, prefix, *given):
        prefixes.append((len(prefix), len(policy.mappers)))
        return search(policy, prefix, *given)

    monkeypatch.setattr(clip_model.MapperPolicy, "sample", sample)
    caption("--images-at-once", "4")
    assert prefixes == [(4, 4)] * 4  # of each of two groups, two steps
    prefixes.clear()
    caption("--images-at-once", "50", "--limit", "3", output="few")
    assert prefixes == [(3, 3)] * 2


def test_a_group_that_was_stopped_is_done_whole_again_with_the_same_bits(caption, monkeypatch):
    flags = ["--images-at-once", "3", "--lr", "1e-2"]
    whole = caption(*flags, output="whole").records()
    for stop in range(1, 8):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after_records(stop, patch)
            caption(*flags, output=str(stop))
        with monkeypatch.context() as patch:
            groups = break_off_after(None, patch)
            assert caption(*flags, output=str(stop)).records() == whole
        assert len(groups) == 3 - stop // 3


def test_the_number_of_processes_changes_no_bit(caption):
    flags = ["--images-at-once", "3", "--lr", "1e-2"]
    whole = caption(*flags, output="whole").records()
    for count in (2, 3):
        assert in_processes(count, lambda out=str(count): caption(*flags, output=out)) == [0] * count
        assert caption(*flags, output=str(count)).records() == whole  # which it has already


def test_a_run_that_was_stopped_goes_on_with_other_processes_and_the_same_bits(caption, monkeypatch):
    flags = ["--images-at-once", "3", "--lr", "1e-2"]
    whole = caption(*flags, output="whole").records()
    with monkeypatch.context() as patch:
        stop_after_records(2, patch)
        assert in_processes(2, lambda: caption(*flags)) == [130, 130]
    with monkeypatch.context() as patch:
        stop_after_records(1, patch)
        assert in_processes(3, lambda: caption(*flags)) == [130, 130, 130]
    assert caption(*flags).records() == whole


def test_a_run_keeps_its_images_at_once(caption):
    caption("--images-at-once", "3", "--limit", "3")
    with pytest.raises(UserError, match=r"another config: images_at_once \(3 -> 4\)"):
        caption("--images-at-once", "4", "--limit", "3")


def test_an_unreadable_image_leaves_its_group(caption, data):
    (data / "clean" / "3.png").write_bytes(b"torn")
    records = caption("--images-at-once", "3", "--skip-bad-images").records()
    assert [r["index"] for r in records if r["status"] == "unreadable"] == [3]
    assert sum(r["status"] == "ok" for r in records) == 7


def test_a_momentum_buffer_has_no_several(caption):
    with pytest.raises(UserError, match="--momentum carries weights from sample to sample; use --images-at-once 1"):
        caption("--momentum", "--images-at-once", "2")


@pytest.fixture
def group():
    generator = torch.Generator().manual_seed(2)
    views = torch.randint(0, 256, (3, 1, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return list(enumerate(views))


def test_all_mappers_are_put_back(make_captioner, group):
    captioner = make_captioner(images_at_once=3)
    before = copied(captioner.policy.mappers)
    answers = captioner.adapt(group)
    assert len(before) == 3 * len(list(random_mapper().parameters())) and len(answers) == 3
    assert same(copied(captioner.policy.mappers), before)


def test_one_image_that_gives_nothing_finite_leaves_the_others_captions(make_captioner, group, monkeypatch):
    captioner, alone = make_captioner(images_at_once=3), make_captioner()
    expected = [alone.adapt([sample])[0] for sample in group]
    policy = captioner.policy
    spoilt, make_prefix = policy.encode(group[1][1]), policy.prefix

    def prefix(features):
        of_the_spoilt = torch.isclose(features, spoilt, atol=1e-5).all(dim=-1)
        return torch.where(of_the_spoilt[:, None, None], torch.nan, make_prefix(features))

    monkeypatch.setattr(policy, "prefix", prefix)
    with pytest.raises(GroupGivenUp):
        captioner.adapt(group)
    answers = side_by_side(group, captioner.adapt)
    assert [answer.finite for answer in answers] == [True, False, True]
    assert [answers[i].adapted for i in (0, 2)] == [expected[i].adapted for i in (0, 2)]
    assert answers[1].adapted == answers[1].zero_shot == expected[1].zero_shot and not answers[1].trace


def test_fp16_steps_that_overflow_are_left_out_of_that_images_episode_alone(make_captioner, group, monkeypatch):
    """So large is the loss of one image that its first scaled step overflows; alone it goes on, and so it does here."""
    large = make_captioner().rewards.see(group[1][1]).scorers[0].images

    def spoiling(config, sampled, seen):
        step = rlcf(config, sampled, seen)
        of_the_large = torch.isclose(seen.scorers[0].images, large, atol=1e-5).all(dim=-1)
        return step._replace(loss=step.loss * torch.where(of_the_large, 1e36, 1.0))

    objective(monkeypatch, spoiling)
    one, three = make_captioner(precision="fp16"), make_captioner(precision="fp16", images_at_once=3)
    alone = [one.adapt([sample])[0] for sample in group]
    with pytest.raises(GroupGivenUp):
        three.adapt(group)
    together = side_by_side(group, three.adapt)
    assert all(answer.finite for answer in together)
    assert [(a.adapted, len(a.trace)) for a in together] == [(a.adapted, len(a.trace)) for a in alone]
