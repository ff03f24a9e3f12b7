"""Several images captioned and adapted to at once: the captions of one image at a time."""

from functools import partial

import pytest
import torch

from caption import main as task
from caption.captioner import Captioner
from caption.language_model import load_language_model
from caption.main import CaptionConfig, adapt
from caption.reward import Rewards
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import side_by_side
from rlcf.clip.backbone import load_clip
from rlcf.errors import UserError

from .conftest import random_mapper, read_records


def but_floats(record):
    """A record's words, and its rewards rounded."""
    rewards = [record.get(f"{name}_reward", 0.0) for name in ("zero_shot", "adapted")]
    rewards += [reward for step in record.get("steps", []) for reward in step["rewards"]]
    words = [record["id"], record["zero_shot"], record["adapted"], record["status"]]
    return [*words, [step["candidates"] for step in record.get("steps", [])]], rewards


@pytest.mark.parametrize(
    "flags",
    [
        ["--lr", "1e-2"],
        ["--lr", "1e-2", "--score-padding"],
        ["--lr", "1e-2", "--baseline", "all", "--divide-by-std"],
        ["--sampling", "nucleus"],
        ["--method", "none"],
        ["--reward", "demo-reward", "demo-student"],
    ],
)
def test_several_images_at_once_have_the_captions_of_one_at_a_time(flags, caption):
    alone, together = (
        [but_floats(r) for r in read_records(caption(*flags, "--episodes", count, output=count) / "json-clean")]
        for count in ("1", "3")  # 3, 3, then 2
    )
    assert [words for words, _ in together] == [words for words, _ in alone]
    for (_, ours), (_, theirs) in zip(together, alone, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def test_there_are_no_more_mappers_than_images(caption, monkeypatch):
    made, make = [], task.make_captioner
    monkeypatch.setattr(task, "make_captioner", lambda *given: made.append(make(*given)) or made[-1])
    caption("--episodes", "50", "--limit", "3")
    assert len(made[0].mappers) == 3


def test_a_stopped_run_goes_on_with_other_episodes(caption, monkeypatch):
    whole = [but_floats(r)[0] for r in read_records(caption(output="whole") / "json-clean")]
    calls, episode = [], task.adapt

    def stopping(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return episode(*given)

    monkeypatch.setattr(task, "adapt", stopping)
    with pytest.raises(KeyboardInterrupt):
        caption("--episodes", "3")
    monkeypatch.undo()
    assert [but_floats(r)[0] for r in read_records(caption("--episodes", "4") / "json-clean")] == whole


def test_several_images_are_generated_for_in_one_go(caption, monkeypatch):
    prefixes, search = [], task.beam_search
    monkeypatch.setattr(
        task, "beam_search", lambda lm, prefix, *rest: prefixes.append(len(prefix)) or search(lm, prefix, *rest)
    )
    caption("--episodes", "4")
    assert prefixes == [4, 4, 4, 4]  # of each of two groups, two steps
    prefixes.clear()
    caption("--episodes", "50", "--limit", "3", output="few")
    assert prefixes == [3, 3]


def test_an_unreadable_image_leaves_its_group(caption, data):
    (data / "clean" / "3.png").write_bytes(b"torn")
    records = read_records(caption("--episodes", "3", "--skip-bad-images") / "json-clean")
    assert [r["index"] for r in records if r["status"] == "unreadable"] == [3]
    assert sum(r["status"] == "ok" for r in records) == 7


def test_a_momentum_buffer_has_no_several(caption):
    with pytest.raises(UserError, match="--momentum carries weights from sample to sample; use --episodes 1"):
        caption("--momentum", "--episodes", "2")


@pytest.fixture
def setting(student, lm_folder):
    """Config, captioner, rewards and episodes, as the entry script puts them together."""

    def make(episodes, precision="fp32", **further):
        small = {"checkpoint": "tiny", "sample_k": 3, "steps": 2, "lr": 1e-2, "max_new_tokens": 5, "beams": 2}
        config = CaptionConfig(**{**small, **further}, episodes=episodes)
        captioner = Captioner(
            student, random_mapper(), load_language_model(str(lm_folder("opt"))), samples=config.episodes
        )
        rewards = Rewards([load_clip("demo-reward")], [1.0])
        return config, captioner, rewards, Episodes.from_config(config, captioner.tuned, captioner.buffers, precision)

    return make


@pytest.fixture
def group():
    generator = torch.Generator().manual_seed(2)
    views = torch.randint(0, 256, (3, 1, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return list(enumerate(views))


def test_all_mappers_are_put_back(setting, group):
    config, captioner, rewards, episodes = setting(3)
    before = {name: value.detach().clone() for name, value in captioner.tuned.items()}
    outcomes = adapt(config, captioner, rewards, episodes, group)
    assert len(before) == 3 * len(list(random_mapper().parameters())) and len(outcomes) == 3
    assert all(torch.equal(value, before[name]) for name, value in captioner.tuned.items())


def test_padding_of_other_images_captions_never_counts(setting):
    captioner = setting(1)[1]
    texts = [["a dog", "a cat above an owl"], ["a cat to the left of an owl", "a dog"]]
    prefix = torch.randn(2, 3, captioner.lm.width, generator=torch.Generator().manual_seed(0))
    for padded in (False, True):
        alone = [captioner.log_likelihood(prefix[i : i + 1], texts[i : i + 1], padded) for i in range(2)]
        together = captioner.log_likelihood(prefix, texts, padded)
        torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)


def test_one_image_that_gives_nothing_finite_leaves_the_others_captions(setting, group, monkeypatch):
    (config, *rest), alone = setting(3), setting(1)
    expected = [adapt(*alone, [sample])[0] for sample in group]
    captioner = rest[0]
    spoilt, make_prefix = captioner.encode(group[1][1]), captioner.prefix

    def prefix(features):
        found = make_prefix(features)
        of_the_spoilt = torch.isclose(features, spoilt, atol=1e-5).all(dim=-1)
        return torch.where(of_the_spoilt[:, None, None], torch.nan, found) if torch.is_grad_enabled() else found

    monkeypatch.setattr(captioner, "prefix", prefix)
    outcomes = side_by_side(group, partial(adapt, config, *rest))
    assert [outcome.finite for outcome in outcomes] == [True, False, True]
    assert [outcomes[i].adapted for i in (0, 2)] == [expected[i].adapted for i in (0, 2)]
    assert outcomes[1].adapted == outcomes[1].zero_shot == expected[1].zero_shot and not outcomes[1].steps


def test_fp16_steps_that_overflow_are_left_out_of_that_images_episode_alone(setting, group, monkeypatch):
    """So large is the loss of one image that its first scaled step overflows; alone it goes on, and so it does here."""
    plain, of_several = task.objective, []

    def spoiling(*given):
        *made, samples = given
        factors = torch.tensor([1e36 if index == 1 else 1.0 for index, _ in samples])
        monkeypatch.setattr(task, "objective", lambda *terms: factors * plain(*terms))
        outcomes = adapt(*made, samples)
        of_several.extend([outcomes] if len(samples) > 1 else [])
        return outcomes

    one, three = (partial(spoiling, *setting(places, "fp16")) for places in (1, 3))
    alone = [side_by_side([sample], one)[0] for sample in group]
    together = side_by_side(group, three)
    assert of_several == [[]] and all(outcome.finite for outcome in together)
    assert [(o.adapted, len(o.steps)) for o in together] == [(o.adapted, len(o.steps)) for o in alone]
