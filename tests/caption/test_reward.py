import dataclasses

import pytest
import torch

from caption.reward import Rewards
from rlcf.adapt.rewards import clip_score
from rlcf.clip.backbone import Backbone, load_clip

TEXTS = ["a dog above an owl", "a cat below a key", "a dog above an owl", "a cat below a key"]


@pytest.fixture(scope="module")
def clips():
    return [load_clip("demo-reward"), load_clip("demo-student")]


@pytest.fixture
def view():
    return torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)


def test_scores_are_clipscores(clips, view):
    image = clips[0].encode_image(clips[0].prepare(view))
    expected = clip_score(image, clips[0].encode_text(TEXTS))[None]
    torch.testing.assert_close(Rewards(clips[:1], [1.0]).see(view).scores([TEXTS]), expected)


def test_an_ensembles_score_is_the_weighted_mean(clips, view):
    single = [Rewards([clip], [1.0]).see(view).scores([TEXTS]) for clip in clips]
    both = Rewards(clips, [0.7, 0.3]).see(view).scores([TEXTS])
    torch.testing.assert_close(both, 0.7 * single[0] + 0.3 * single[1])


def test_captions_that_repeat_are_scored_once(clips, view, monkeypatch):
    asked = []

    def encode_text(self, texts, desc=None):
        asked.extend(texts)
        return original(self, texts)

    original = Backbone.encode_text
    monkeypatch.setattr(Backbone, "encode_text", encode_text)
    seen = Rewards([dataclasses.replace(clips[0])], [1.0]).see(view)
    scores = seen.scores([TEXTS])
    assert asked == TEXTS[:2] and torch.equal(scores[:, :2], scores[:, 2:])
    again = seen.scores([[TEXTS[1], "a pig"]])
    assert asked == [*TEXTS[:2], "a pig"] and again[0, 0] == scores[0, 1]


def test_each_images_captions_are_scored_against_it(clips):
    views = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    rewards = Rewards(clips, [0.7, 0.3])
    alone = [
        rewards.see(view[None]).scores([texts])[0] for view, texts in zip(views, (TEXTS[:2], TEXTS[1:3]), strict=True)
    ]
    together = rewards.see(views).scores([TEXTS[:2], TEXTS[1:3]])
    torch.testing.assert_close(together, torch.stack(alone))
