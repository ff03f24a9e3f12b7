"""--stop-when-settled in classification: episodes that end early have the answer of as many steps."""

import pytest
import torch

from rlcf.adapt.groups import side_by_side

ALL = 2.5  # the bound that no advantage reaches
TUNED = [("prompt", "vit"), ("norm", "vit"), ("norm", "resnet")]


STEPS = 5


@pytest.fixture
def images():
    """The views of three images, (10, 3, 64, 64) each."""
    return list(torch.randint(0, 256, (3, 10, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(4)))


@pytest.fixture
def adapt(build, images):
    """The outcomes of images, `images_at_once` at a time, with settings."""

    def run(tune="prompt", kind="vit", images_at_once=1, group=images, **settings):
        # An epsilon as in test_images_at_once: the order of float operations shall decide nothing.
        settings = {"steps": STEPS, "eps": 0.1 if kind == "resnet" else 1e-3, **settings}
        classifier = build(tune, kind, images_at_once=images_at_once, **settings)
        groups = [list(enumerate(group))[i : i + images_at_once] for i in range(0, len(group), images_at_once)]
        return [outcome for some in groups for outcome in side_by_side(some, classifier.adapt)]

    return run


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_an_episode_that_ends_early_is_one_of_fewer_steps(adapt, images, tune):
    for image in images[:2]:
        (settled,), (whole,) = (adapt(tune, group=[image], stop_when_settled=bound) for bound in (ALL, 0.0))
        count = len(settled.trace)
        assert settled.settled and 2 <= count < STEPS and settled.trace == whole.trace[:count] and whole.settled is None
        last, other = ([sorted(row) for row in step.answers] for step in settled.trace[-2:])
        assert last == other
        assert torch.equal(settled.after, adapt(tune, group=[image], steps=count)[0].after)


def test_no_advantage_is_below_a_bound_of_nothing(adapt, images):
    (bounded,), (plain,) = (adapt(group=images[:1], stop_when_settled=bound) for bound in (1e-9, 0.0))
    assert bounded.settled is False and torch.equal(bounded.after, plain.after) and bounded.trace == plain.trace


def largest(outcome):
    """The largest size of an advantage."""
    return max(abs(advantage) for step in outcome.trace for row in step.advantages for advantage in row)


@pytest.mark.parametrize(("tune", "kind"), TUNED)
def test_an_image_that_has_settled_stays_as_it_is_while_the_others_of_its_group_go_on(adapt, tune, kind):
    plain = adapt(tune, kind)
    sizes = sorted(map(largest, plain))
    bound = (sizes[0] + sizes[-1]) / 2  # some image settles, some other does not
    alone, together = (adapt(tune, kind, images_at_once=count, stop_when_settled=bound) for count in (1, 3))
    counts = [len(outcome.trace) for outcome in alone]
    assert [len(outcome.trace) for outcome in together] == counts and min(counts) < max(counts) == STEPS
    for ours, theirs, whole in zip(together, alone, plain, strict=True):
        torch.testing.assert_close(ours.after, theirs.after, atol=5e-4, rtol=1e-4)
        assert ours.settled == theirs.settled
        assert not ours.settled or (ours.after - whole.after).abs().max() > 2e-3  # it would have gone on


def test_records_tell_the_steps_and_results_their_mean(classify, capsys):
    settled = classify("--steps", 3, "--lr", 1e-5, "--gate", "agree", "--stop-when-settled", ALL)
    records, summary = settled.records(), settled.metrics["folder:blur"]
    episodes = [record for record in records if not record.get("gated")]
    assert all(record["steps_taken"] == len(record["steps"]) for record in episodes)
    assert all(record["settled"] == (record["steps_taken"] < 3) for record in episodes)
    assert not any("settled" in record for record in records if record.get("gated"))
    count = sum(record["settled"] for record in episodes)
    assert 0 < count == summary["settled"] <= len(episodes) < len(records)
    assert summary["mean_steps"] == sum(record["steps_taken"] for record in episodes) / len(episodes)
    assert f"{count} ended early, settled (mean {summary['mean_steps']:.1f} steps)" in capsys.readouterr().out
