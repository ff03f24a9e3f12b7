"""Methods without gradients against the authors' numbers, on their features."""

import numpy as np
import pytest
import torch

from classification.config import ClassificationConfig
from classification.methods import METHODS, Image
from rlcf.adapt.objectives import select_confident


@pytest.fixture(scope="module")
def expected(golden):
    return {
        key: torch.from_numpy(np.asarray(value))
        for key, value in golden("l_training_free").items()
        if key != "classnames"
    }


@pytest.fixture
def image(expected):
    """The twelve samples with their first views, some of which are kept."""

    def make(views, kept):
        features = expected["student_views"][:, :views]
        logits = expected["logit_scale"] * features @ expected["student_text"].T
        return Image(features, logits, select_confident(logits, kept), None)

    return make


@pytest.mark.parametrize(("key", "views", "selection"), [("g30", 64, 0.3), ("g10", 64, 0.1), ("v7g60", 7, 0.6)])
def test_votes_equal_the_authors(key, views, selection, expected, image):
    config = ClassificationConfig(method="zero", views=views, selection=selection)
    votes = METHODS["zero"].answer(config, image(views, config.kept)).exp()
    np.testing.assert_allclose(votes, expected[f"zero_{key}_votes"], atol=1e-4, rtol=0)
