"""Methods without gradients against the authors' numbers, on their features."""

import numpy as np
import pytest
import torch

from classification.config import ClassificationConfig
from classification.training_free import ANSWERS, Cache, CacheSettings, Image
from rlcf.adapt.objectives import select_confident
from rlcf.adapt.rewards import ClipScorer, Seen


class Teacher:
    """A reward model that is its logit scale alone."""

    logit_scale = 20.0


@pytest.fixture(scope="module")
def expected(golden):
    arrays = golden("l_training_free")
    return {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items() if key != "classnames"}


@pytest.fixture
def image(expected):
    """The twelve samples with their first views, some of which are kept."""

    def make(views, kept, **more):
        features, classes, scale = (expected[key] for key in ("student_views", "student_text", "logit_scale"))
        features = features[:, :views]
        chosen = select_confident(scale * features @ classes.T, kept)
        rows = torch.arange(12)[:, None]
        seen = Seen([ClipScorer(Teacher, expected["reward_views"][rows, chosen], expected["reward_text"])], [1.0])
        return Image(features, classes, scale, chosen, seen, **more)

    return make


@pytest.mark.parametrize("voter", ["student", "reward"])
@pytest.mark.parametrize(("key", "views", "selection"), [("g30", 64, 0.3), ("g10", 64, 0.1), ("v7g60", 7, 0.6)])
def test_votes_equal_the_authors(voter, key, views, selection, expected, image):
    config = ClassificationConfig(method="zero", voter=voter, views=views, selection=selection, published_ties=True)
    votes = ANSWERS["zero"](config, image(views, config.kept)).exp()
    name = f"zero_{key}_votes" if voter == "student" else f"zero_reward_{key}_votes"
    np.testing.assert_allclose(votes, expected[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("key", "views", "settings"),
    [("mta_logits", 64, {}), ("mta_y0.5_q1_logits", 16, {"mta_lambda_y": 0.5, "mta_lambda_q": 1.0})],
)
def test_modes_equal_the_authors(key, views, settings, expected, image):
    config = ClassificationConfig(method="mta", views=views, **settings)
    np.testing.assert_allclose(ANSWERS["mta"](config, image(views, 1)), expected[key], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("tda_single_logits", CacheSettings()),
        ("tda_wide_negative_logits", CacheSettings(entropy=(0.05, 0.95), negative_alpha=0.5)),
    ],
)
def test_caches_of_single_views_equal_the_authors(key, settings, expected, image):
    config, whole = ClassificationConfig(method="tda", views=1), image(64, 1)
    memory = Cache(whole.classes, settings)
    for (sample, view), logits in zip(expected["tda_stream"].tolist(), expected[key], strict=True):
        features = whole.features[sample, view][None, None]
        one = Image(features, whole.classes, whole.scale, torch.zeros(1, 1, dtype=torch.long), memory=memory)
        np.testing.assert_allclose(ANSWERS["tda"](config, one)[0], logits, atol=1e-4, rtol=0)


def test_caches_of_several_views_equal_the_authors(expected, image):
    config = ClassificationConfig(method="tda")
    several = image(64, config.kept, memory=Cache(expected["student_text"]))
    np.testing.assert_allclose(ANSWERS["tda"](config, several), expected["tda_views_logits"], atol=1e-4, rtol=0)
