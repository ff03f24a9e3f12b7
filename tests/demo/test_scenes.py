import json

import numpy as np
import pytest
from PIL import Image

from demo.scenes import CONVERSE, held_out_scenes, scene_captions
from demo.world import scene_images, write_retrieval
from rlcf.errors import UserError


def place(scene):
    """The things and their places, whichever is named first."""
    turned = (scene.second, scene.first, CONVERSE[scene.relation])
    return min((scene.first, scene.second, scene.relation), turned)


def test_scenes_are_of_held_out_pairs_and_none_twice():
    scenes = held_out_scenes(200, np.random.default_rng(0))
    assert all(scene.held_out and scene.first != scene.second for scene in scenes)
    assert len({place(scene) for scene in scenes}) == 200
    assert len({text for scene in scenes for text in scene_captions(scene)}) == 1000


def test_more_scenes_than_there_are_is_told():
    with pytest.raises(UserError, match=r"there are \d+ different scenes of held-out pairs, not 5000"):
        held_out_scenes(5000, np.random.default_rng(0))


def test_the_seed_and_the_style_decide_the_scenes():
    pictures, scenes = scene_images("blur", 4, seed=1)
    again, same = scene_images("blur", 4, seed=1)
    assert pictures.shape == (4, 3, 64, 64) and bool((pictures == again).all()) and scenes == same
    assert scene_images("blur", 4, seed=2)[1] != scenes != scene_images("clean", 4, seed=1)[1]


def test_scenes_are_written_as_a_karpathy_list(tmp_path):
    write_retrieval(tmp_path, "pixelate", 3, seed=5)
    listed = json.loads((tmp_path / "pixelate.json").read_text())
    pictures, scenes = scene_images("pixelate", 3, seed=5)
    assert [entry["caption"] for entry in listed] == [scene_captions(scene) for scene in scenes]
    for entry, picture in zip(listed, pictures, strict=True):
        pixels = np.asarray(Image.open(tmp_path / entry["image"]))
        assert np.array_equal(pixels, (picture * 255).round().byte().permute(1, 2, 0).numpy())
