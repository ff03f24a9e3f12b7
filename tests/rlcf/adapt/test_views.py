import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data._utils.pin_memory import pin_memory
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as TF

from rlcf.adapt import augment as augment_module
from rlcf.adapt import views as views_module
from rlcf.adapt.augment import augmix
from rlcf.adapt.views import LEAST_AREA, PlannedViews, Views, sample_crop

HEIGHT, WIDTH = 16, 24


def centre(image):
    return TF.to_tensor(image.resize((WIDTH, HEIGHT)))


def make(augment="crop", count=5, seed=0, on_device=False):
    return Views(centre, (HEIGHT, WIDTH), count, augment, seed, on_device)


def noise(width=50, height=40):
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def image():
    return noise()


@pytest.mark.parametrize("augment", LEAST_AREA)
def test_the_first_view_is_the_centre_crop(image, augment):
    first = make(augment)(image, 3)[0]
    pixels = first * 255 if augment == "augmix" else first.float()
    torch.testing.assert_close(pixels, centre(image) * 255, atol=1e-3, rtol=0)


@pytest.mark.parametrize("augment", LEAST_AREA)
def test_views_have_the_asked_count_and_size(image, augment):
    for count in (1, 2, 7):
        assert make(augment, count)(image, 0).shape == (count, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("augment", ["crop", "hard"])
def test_crop_and_hard_views_are_bytes(image, augment):
    assert make(augment)(image, 0).dtype == torch.uint8


def test_augmix_views_are_floats_in_zero_to_one(image):
    views = make("augmix", 20)(image, 0)
    assert views.dtype == torch.float32 and views.min() >= 0 and views.max() <= 1 + 1e-6


@pytest.mark.parametrize("augment", LEAST_AREA)
def test_seed_and_index_decide_the_views(image, augment):
    views = make(augment)(image, 3)
    assert torch.equal(make(augment)(image, 3), views)
    assert not torch.equal(make(augment)(image, 4)[1:], views[1:])
    assert not torch.equal(make(augment, seed=1)(image, 3)[1:], views[1:])


@pytest.mark.parametrize("augment", LEAST_AREA)
def test_views_neither_read_nor_change_global_random_states(image, augment):
    maker = make(augment)
    views, numpy_state, torch_state = maker(image, 3), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    torch.rand(1)
    maker(image, 8)
    torch.set_rng_state(torch_state)
    assert torch.equal(maker(image, 3), views)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


@pytest.mark.parametrize("augment", LEAST_AREA)
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


@pytest.mark.parametrize("size", [(20, 15), (50, 40), (500, 375), (30, 400)])
def test_plain_views_are_pillows_crops_resized_and_mirrored_to_two_levels(size):
    image, rng = noise(*size), np.random.default_rng([3, 9])
    views = make(count=40, seed=3)(image, 9)
    expected = []
    for _ in range(39):
        crop = image.crop(sample_crop(*size, (0.08, 1.0), rng)).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        mirrored = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop
        expected.append(TF.pil_to_tensor(mirrored).int())
    difference = (views[1:].int() - torch.stack(expected)).abs()
    assert difference.max() <= 2 and difference.float().mean() < 0.25


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


def test_augmix_of_operations_that_change_nothing_is_the_view(image, monkeypatch):
    monkeypatch.setattr(augment_module, "_AUGMIX_OPERATIONS", [lambda view, rng: view])
    torch.testing.assert_close(augmix(image, np.random.default_rng(0)), TF.to_tensor(image), atol=1e-6, rtol=0)


def test_augmix_mixes_the_view_and_its_chains_by_a_beta_draw(image, monkeypatch):
    monkeypatch.setattr(augment_module, "_AUGMIX_OPERATIONS", [lambda view, rng: Image.new("RGB", view.size)])
    rng = np.random.default_rng(4)
    rng.dirichlet([1.0, 1.0, 1.0])
    share = float(rng.beta(1.0, 1.0))
    mixed = augmix(image, np.random.default_rng(4))
    torch.testing.assert_close(mixed, share * TF.to_tensor(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (-3, 0), (0, 5), (0, -5), (0, 0)])
def test_augmix_translates_as_an_affine_transform_does(image, x, y):
    matrix = (1, 0, x, 0, 1, y)
    moved = image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)
    assert np.array_equal(augment_module._translate(image, x, y), moved)


# ---- views made on a device ----


def test_planned_views_made_on_the_cpu_are_the_views(image):
    for index in range(5):
        plan = make(count=30, on_device=True)(image, index)
        assert isinstance(plan, PlannedViews)
        assert torch.equal(plan.render("cpu"), make(count=30)(image, index))


@pytest.mark.parametrize("size", [(20, 15), (50, 40), (500, 375)])
def test_views_made_in_floats_are_those_made_in_bytes_to_a_level(size, monkeypatch):
    plan = make(count=40, on_device=True)(noise(*size), 2)
    in_bytes = plan.render()
    monkeypatch.setattr(views_module, "resizing_dtype", lambda device: torch.float32)
    in_floats = plan.render()
    assert in_floats.dtype == torch.uint8 and torch.equal(in_floats[0], in_bytes[0])
    assert (in_floats.int() - in_bytes.int()).abs().max() <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_views_made_on_a_cuda_device_are_those_of_the_cpu_to_a_level():
    plan = make(count=40, on_device=True)(noise(500, 375), 2)
    made = plan.pin_memory().render("cuda")
    assert made.is_cuda and made.dtype == torch.uint8
    assert (made.cpu().int() - plan.render().int()).abs().max() <= 1


def test_bytes_are_resized_on_the_cpu_alone():
    assert views_module.resizing_dtype(torch.device("cpu")) == torch.uint8
    assert views_module.resizing_dtype(torch.device("cuda:0")) == torch.float32


def test_a_plan_holds_the_image_and_where_each_view_is_cut(image):
    plan = make(count=30, on_device=True)(image, 0)
    assert np.array_equal(plan.image.permute(1, 2, 0), image) and plan.centre.shape == (3, HEIGHT, WIDTH)
    assert plan.boxes.shape == (29, 4) and plan.boxes.dtype == torch.int64
    assert plan.flips.shape == (29,) and plan.flips.dtype == torch.bool
    assert 0 < plan.flips.sum() < 29


def test_a_plan_of_one_view_is_the_centre_crop(image):
    assert torch.equal(make(count=1, on_device=True)(image, 0).render(), make(count=1)(image, 0))


@pytest.mark.parametrize("augment", ["augmix", "hard"])
def test_views_other_than_plain_ones_are_not_made_on_a_device(augment):
    with pytest.raises(ValueError, match=f"^{augment} views are not made on the device"):
        make(augment, on_device=True)


def test_the_pixels_of_a_plan_are_pinned_by_the_data_loader(image, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor.clone())
    plan = make(on_device=True)(image, 0)
    _, moved = pin_memory((0, plan))
    assert pinned == [plan.centre.shape, plan.image.shape]
    assert torch.equal(moved.render(), plan.render())


# ---- crop boxes ----


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


def largest_gap(first, second):
    """Kolmogorov-Smirnov: the largest difference of two samples' distribution functions."""
    values = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (first, second)]
    return np.abs(below[0] - below[1]).max()


@pytest.mark.parametrize("size", [(500, 375), (300, 400), (900, 300)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 1.0)])
def test_crop_boxes_are_distributed_as_torchvisions(size, scale):
    (width, height), n = size, 4000
    rng, blank = np.random.default_rng(0), torch.empty(3, height, width)
    ours = np.array([sample_crop(width, height, scale, rng) for _ in range(n)])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(n)]
    theirs = np.array([(left, top, left + w, top + h) for top, left, h, w in drawn])

    def facts(boxes):
        left, top, right, bottom = boxes.T
        w, h = right - left, bottom - top
        return {"area": w * h, "aspect": w / h, "left": left, "top": top, "right": right, "bottom": bottom}

    critical = 1.95 * np.sqrt(2 / n)  # for a chance of one in a thousand
    gaps = {name: largest_gap(mine, facts(theirs)[name]) for name, mine in facts(ours).items()}
    assert max(gaps.values()) < critical, gaps


def test_half_of_the_plain_views_are_mirrored_whatever_their_box():
    plan = make(count=4001, on_device=True)(noise(), 0)
    flips, left = plan.flips.double(), plan.boxes[:, 0].double()
    assert 0.47 < flips.mean() < 0.53
    assert torch.corrcoef(torch.stack([flips, left]))[0, 1].abs() < 0.05


@pytest.mark.parametrize("augment", LEAST_AREA)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_the_smallest_and_longest_images_have_views(size, augment):
    assert make(augment, 12)(noise(*size), 0).shape == (12, 3, HEIGHT, WIDTH)
