import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as TF

from rlcf import views as views_module
from rlcf.views import AUGMENTATIONS, Views, sample_crop

HEIGHT, WIDTH = 16, 24


def centre(image):
    return TF.to_tensor(image.resize((WIDTH, HEIGHT)))


def make(augment="crop", count=5, seed=0):
    return Views(centre, (HEIGHT, WIDTH), count, augment, seed)


def noise(width=50, height=40):
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def image():
    return noise()


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_the_first_view_is_the_centre_crop(image, augment):
    first = make(augment)(image, 3)[0]
    pixels = first * 255 if augment == "augmix" else first.float()
    torch.testing.assert_close(pixels, centre(image) * 255, atol=1e-3, rtol=0)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_views_have_the_asked_count_and_size(image, augment):
    for count in (1, 2, 7):
        assert make(augment, count)(image, 0).shape == (count, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("augment", ["crop", "hard"])
def test_crop_and_hard_views_are_bytes(image, augment):
    assert make(augment)(image, 0).dtype == torch.uint8


def test_augmix_views_are_floats_in_zero_to_one(image):
    views = make("augmix", 20)(image, 0)
    assert views.dtype == torch.float32 and views.min() >= 0 and views.max() <= 1 + 1e-6


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_seed_and_index_decide_the_views(image, augment):
    views = make(augment)(image, 3)
    assert torch.equal(make(augment)(image, 3), views)
    assert not torch.equal(make(augment)(image, 4)[1:], views[1:])
    assert not torch.equal(make(augment, seed=1)(image, 3)[1:], views[1:])


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_views_neither_read_nor_change_global_random_states(image, augment):
    maker = make(augment)
    views, numpy_state, torch_state = maker(image, 3), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    torch.rand(1)
    maker(image, 8)
    torch.set_rng_state(torch_state)
    assert torch.equal(maker(image, 3), views)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_random_views_differ_from_one_another(image, augment):
    views = make(augment, 10)(image, 0).flatten(1)
    assert len(torch.unique(views, dim=0)) == 10


@pytest.mark.parametrize(("augment", "least"), [("crop", 0.08), ("augmix", 0.08), ("hard", 0.2)])
def test_the_least_area_of_a_crop_is_the_augmentations_own(image, augment, least, monkeypatch):
    scales = []
    original = sample_crop
    monkeypatch.setattr(views_module, "sample_crop", lambda w, h, s, rng: scales.append(s) or original(w, h, s, rng))
    make(augment, 3)(image, 0)
    assert scales == [(least, 1.0)] * 2


def test_about_half_of_the_crops_are_mirrored():
    ramp = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    views = make("crop", 401)(ramp, 0)[1:].float()
    mirrored = views[..., 0].mean(dim=(1, 2)) > views[..., -1].mean(dim=(1, 2))
    assert 160 <= int(mirrored.sum()) <= 240


def test_a_crop_keeps_the_colours_of_the_image():
    red = Image.new("RGB", (60, 40), (200, 10, 20))
    views = make("crop", 4)(red, 0)
    assert torch.equal(views, torch.tensor([200, 10, 20], dtype=torch.uint8).view(1, 3, 1, 1).expand_as(views))


def test_a_fifth_of_hard_views_are_grey_and_two_fifths_keep_their_colours():
    views = make("hard", 601)(Image.new("RGB", (60, 40), (200, 100, 50)), 1)[1:].float()
    colours = views.mean(dim=(2, 3))
    grey = (colours.amax(dim=1) - colours.amin(dim=1)) < 1.5
    untouched = (colours - torch.tensor([200.0, 100.0, 50.0])).abs().amax(dim=1) < 1.5
    assert 0.15 <= grey.float().mean() <= 0.25 and 0.34 <= untouched.float().mean() <= 0.46


def test_hard_views_raise_no_warning(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("hard", 60)(image, 0)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 1000))
def test_a_crop_box_lies_inside_the_image(width, height, seed):
    rng = np.random.default_rng(seed)
    left, top, right, bottom = sample_crop(width, height, (0.08, 1.0), rng)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


@given(st.integers(1, 12), st.integers(200, 4000), st.booleans(), st.integers(0, 1000))
def test_a_crop_of_a_very_long_image_is_its_whole_short_side_at_most_four_thirds_long(short, long, wide, seed):
    width, height = (long, short) if wide else (short, long)
    left, top, right, bottom = sample_crop(width, height, (0.9, 1.0), np.random.default_rng(seed))
    assert min(right - left, bottom - top) == short
    assert max(right - left, bottom - top) == round(short * 4 / 3)
    assert abs(left + right - width) <= 1 and abs(top + bottom - height) <= 1


@given(st.integers(0, 10_000))
def test_a_crop_has_the_asked_area_and_aspect(seed):
    left, top, right, bottom = sample_crop(1000, 1000, (0.2, 0.5), np.random.default_rng(seed))
    width, height = right - left, bottom - top
    assert 0.199 <= width * height / 1e6 <= 0.501
    assert 0.745 <= width / height <= 1.34


def test_crops_reach_every_corner_of_the_image():
    rng = np.random.default_rng(0)
    boxes = np.array([sample_crop(30, 30, (0.3, 0.6), rng) for _ in range(300)])
    assert boxes.min(axis=0)[:2].tolist() == [0, 0] and boxes.max(axis=0)[2:].tolist() == [30, 30]


@pytest.mark.parametrize("augment", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_the_smallest_and_longest_images_have_views(size, augment):
    assert make(augment, 12)(noise(*size), 0).shape == (12, 3, HEIGHT, WIDTH)
