"""--stop-when-settled in classification: episodes that end early have the answer of as many steps."""

import pytest
import torch

from rlcf.adapt.groups import side_by_side

ALL = 2.5  # the bound that no advantage reaches
TUNED = [("prompt", "vit"), ("norm", "vit"), ("norm", "resnet")]


@pytest.fixture
def images():
    """The views of five images, (10, 3, 64, 64) each."""
    return list(torch.randint(0, 256, (5, 10, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(4)))


@pytest.fixture
def adapt(build, images):
    """The outcome of each image, `images_at_once` at a time, with settings."""

    def run(tune="prompt", kind="vit", images_at_once=1, **settings):
        # An epsilon as in test_images_at_once: the order of float operations shall decide nothing.
        settings = {"steps": 8, "eps": 0.1 if kind == "resnet" else 1e-3, **settings}
        classifier = build(tune, kind, images_at_once=images_at_once, **settings)
        groups = [list(enumerate(images))[i : i + images_at_once] for i in range(0, len(images), images_at_once)]
        return [outcome for group in groups for outcome in side_by_side(group, classifier.adapt)]

    return run


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_an_episode_that_ends_early_is_one_of_fewer_steps(adapt, tune):
    settled, whole = adapt(tune, stop_when_settled=ALL), adapt(tune)
    assert {outcome.settled for outcome in settled} >= {True}
    for number, (outcome, other) in enumerate(zip(settled, whole, strict=True)):
        count = len(outcome.trace)
        assert outcome.settled == (count < 8) and outcome.trace == other.trace[:count] and other.settled is None
        answers = [sorted(map(sorted, step.answers)) for step in outcome.trace]
        assert count == 8 or answers[-1] == answers[-2]
        if outcome.settled:
            assert torch.equal(outcome.after, adapt(tune, steps=count)[number].after)


def test_no_advantage_is_below_a_bound_of_nothing(adapt):
    for outcome, other in zip(adapt(stop_when_settled=1e-9), adapt(), strict=True):
        assert not outcome.settled and torch.equal(outcome.after, other.after) and outcome.trace == other.trace


@pytest.mark.parametrize(("tune", "kind"), TUNED)
def test_an_image_that_has_settled_stays_as_it_is_while_the_others_of_its_group_go_on(adapt, tune, kind):
    settings = {"stop_when_settled": ALL, "lr": 2e-2 if kind == "resnet" else 1e-2}
    alone = adapt(tune, kind, **settings)
    together = adapt(tune, kind, images_at_once=5, **settings)
    counts = [len(outcome.trace) for outcome in alone]
    assert [len(outcome.trace) for outcome in together] == counts and len(set(counts)) > 1
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours.after, theirs.after, atol=5e-4, rtol=1e-4)
        assert ours.settled == theirs.settled


def test_records_tell_the_steps_and_results_their_mean(classify, capsys):
    flags = ["--steps", "4", "--gate", "agree"]
    plain = classify(*flags, output="plain")
    settled = classify(*flags, "--stop-when-settled", ALL, output="settled")
    records, summary = settled.records(), settled.metrics["folder:blur"]
    episodes = [record for record in records if not record.get("gated")]
    assert all(record["steps_taken"] == len(record["steps"]) for record in episodes)
    assert all(record["settled"] == (record["steps_taken"] < 4) for record in episodes)
    assert not any("settled" in record for record in [*plain.records(), *(r for r in records if r.get("gated"))])
    count = sum(record["settled"] for record in episodes)
    assert 0 < count == summary["settled"] and "settled" not in plain.metrics["folder:blur"]
    assert summary["mean_steps"] == sum(record["steps_taken"] for record in episodes) / len(episodes)
    assert f"{count} ended early, settled (mean {summary['mean_steps']:.1f} steps)" in capsys.readouterr().out
