import pytest
import torch

from caption.reward import Rewards
from rlcf.adapt.rewards import LEFT_OUT, RewardFunction, clip_score
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError

TEXTS = ["a dog above an owl", "a cat below a key", "a dog above an owl", "a cat below a key"]


@pytest.fixture
def clips(demo_clip):
    return [demo_clip("demo-reward"), demo_clip("demo-student")]


def test_scores_are_clipscores(clips, view):
    image = clips[0].encode_image(clips[0].prepare(view))
    expected = clip_score(image, clips[0].encode_text(TEXTS))[None]
    torch.testing.assert_close(Rewards(clips[:1], [1.0]).see(view).scores([TEXTS]), expected)


def test_an_ensembles_score_is_the_weighted_mean(clips, view):
    single = [Rewards([clip], [1.0]).see(view).scores([TEXTS]) for clip in clips]
    both = Rewards(clips, [0.7, 0.3]).see(view).scores([TEXTS])
    torch.testing.assert_close(both, 0.7 * single[0] + 0.3 * single[1])


def test_captions_that_repeat_are_encoded_once(clips, view, monkeypatch):
    asked = []

    def encode_text(self, texts, desc=None):
        asked.extend(texts)
        return original(self, texts)

    original = Backbone.encode_text
    monkeypatch.setattr(Backbone, "encode_text", encode_text)
    seen = Rewards(clips[:1], [1.0]).see(view)
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


def test_a_function_gets_each_image_with_its_captions():
    views = torch.randint(0, 256, (2, 3, 8, 6), dtype=torch.uint8)
    asked = []

    def length(images, texts):
        asked.extend((image.size, image.getpixel((1, 2)), text) for image, text in zip(images, texts, strict=True))
        return [len(text) for text in texts]

    scores = Rewards([RewardFunction(length)], [1.0]).see(views).scores([["a", "bcd"], ["ef", "g"]])
    assert scores.tolist() == [[1.0, 3.0], [2.0, 1.0]]
    pixels = [tuple(view[:, 2, 1].tolist()) for view in views]
    assert asked == [((6, 8), pixels[i], text) for i, text in ((0, "a"), (0, "bcd"), (1, "ef"), (1, "g"))]


def test_a_function_and_a_clip_make_an_ensemble(clips, view):
    function = RewardFunction(lambda images, texts: [None if "dog" in text else 1.0 for text in texts])
    scores = Rewards([clips[0], function], [0.5, 0.5]).see(view).scores([TEXTS])
    clipscores = Rewards(clips[:1], [1.0]).see(view).scores([TEXTS])
    assert scores[0, 0] == LEFT_OUT == scores[0, 2]
    torch.testing.assert_close(scores[0, 1], 0.5 * clipscores[0, 1] + 0.5)


def test_a_clip_has_no_logits_over_captions(clips, view):
    with pytest.raises(UserError, match="demo-reward has no logits over captions"):
        Rewards(clips[:1], [1.0]).see(view).teacher_logits  # noqa: B018
