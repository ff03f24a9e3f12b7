import logging

import numpy as np
import pytest
import torch
from PIL import Image

from rlcf.adapt.groups import Unreadable
from rlcf.adapt.views import PlannedViews, Views
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError
from rlcf.inputs.images import read_image
from rlcf.run.images import ImageLoader, encode_images, refuse_or_skip
from tests.tools import VIT, build_clip

MEAN_STD = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25]}


def picture(seed=0, size=(20, 14), mode="RGB"):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


@pytest.fixture
def files(tmp_path):
    """Seven pictures of different sizes."""
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    for i, path in enumerate(paths):
        picture(i, (30 + 5 * i, 60 - 4 * i)).save(path)
    return paths


@pytest.fixture(scope="session")
def clips():
    """Two CLIPs, of 32 and 48 pixels."""

    def make(size):
        model = build_clip(vision=VIT | {"image_size": size})
        return Backbone(f"tiny{size}", model, None, {"size": size, **MEAN_STD}, torch.device("cpu"))

    return [make(32), make(48)]


def brightness(image, index):
    return torch.tensor([np.asarray(image).mean(), index])


def test_an_unreadable_file_stops_unless_it_may_be_skipped(caplog):
    with pytest.raises(UserError, match=r"^x.jpg is bad; mend it or pass --skip-bad-images$"):
        refuse_or_skip(Unreadable("x.jpg is bad"), skip=False)
    logger = logging.getLogger("rlcf")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "rlcf"):
            refuse_or_skip(Unreadable("x.jpg is bad"), skip=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert "skipped: x.jpg is bad" in caplog.messages


# ---- many files ----


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A smooth JPEG of 4000 x 3000 pixels."""
    file = tmp_path_factory.mktemp("photo") / "x.jpg"
    picture(size=(16, 12)).resize((4000, 3000), Image.Resampling.BICUBIC).save(file)
    return file


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_images_come_in_the_asked_order_whatever_the_number_of_workers(files, workers):
    order = [4, 0, 6, 2]
    loaded = list(ImageLoader(files, order, brightness).one_by_one(workers))
    assert [index for index, _ in loaded] == order
    expected = [brightness(read_image(files[index]), index) for index in order]
    assert all(torch.equal(tensor, want) for (_, tensor), want in zip(loaded, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_views_are_the_same_whatever_the_number_of_workers(files, workers):
    views = Views(lambda image: torch.zeros(3, 16, 16), (16, 16), count=4, augment="augmix", seed=3)
    for index, made in ImageLoader(files, [5, 1, 3], views).one_by_one(workers):
        assert torch.equal(made, views(read_image(files[index]), index))


@pytest.mark.parametrize("workers", [0, 2])
def test_views_planned_in_worker_processes_are_made_here(files, workers):
    def views(on_device):
        return Views(lambda image: torch.zeros(3, 16, 16), (16, 16), count=6, seed=3, on_device=on_device)

    loaded = list(ImageLoader(files, [5, 1, 3], views(on_device=True)).one_by_one(workers))
    assert [index for index, _ in loaded] == [5, 1, 3]
    for index, plan in loaded:
        assert isinstance(plan, PlannedViews)
        assert torch.equal(plan.render("cpu"), views(on_device=False)(read_image(files[index]), index))


@pytest.mark.parametrize("workers", [0, 2])
def test_drafts_are_decoded_in_worker_processes(photo, workers):
    ((_, size),) = ImageLoader([photo], [0], lambda image, index: torch.tensor(image.size), draft=(64, 64)).one_by_one(
        workers
    )
    assert size.tolist() == [500, 375]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_among_many_comes_as_its_reason(files, workers):
    files[2].write_text("no picture")
    loaded = dict(ImageLoader(files, range(4), brightness).one_by_one(workers))
    assert loaded[2] == Unreadable(f"{files[2]} cannot be read as an image (cannot identify image file)")
    assert all(isinstance(loaded[index], torch.Tensor) for index in (0, 1, 3))


def test_no_files_need_no_worker(files):
    assert list(ImageLoader(files, [], brightness).one_by_one(2)) == []


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_features_equal_those_of_one_image_at_a_time(files, clips, batch_size):
    first, second = encode_images(clips, files, workers=0, batch_size=batch_size)
    assert first.shape == second.shape == (7, 16) and not first.requires_grad
    for i, file in enumerate(files):
        centre = Views(clips[0].centre_view, clips[0].size, count=1)(read_image(file), i)
        for clip, features in zip(clips, (first, second), strict=True):
            with torch.no_grad():
                torch.testing.assert_close(features[i], clip.encode_image(clip.prepare(centre))[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(7))
    assert torch.pdist(first).min() > 1e-3


def test_features_do_not_depend_on_the_number_of_workers(files, clips):
    one, several = (encode_images(clips, files, workers, batch_size=3) for workers in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_features_follow_the_order_of_the_files(files, clips):
    there, back = encode_images(clips[:1], files, 0)[0], encode_images(clips[:1], files[::-1], 0)[0]
    torch.testing.assert_close(there, back.flip(0), atol=1e-6, rtol=0)


def test_every_model_sees_the_first_models_view_at_its_own_resolution(files, clips, monkeypatch):
    seen = []
    original = Backbone.prepare
    monkeypatch.setattr(Backbone, "prepare", lambda clip, views: seen.append(views.shape[-2:]) or original(clip, views))
    encode_images(clips[::-1], files, 0)
    assert seen == [(48, 48), (48, 48)]


def test_a_file_without_features_is_told_with_its_path(files, clips):
    files[3].unlink()
    with pytest.raises(UserError) as error:
        encode_images(clips, files, 0)
    reason = "cannot be read as an image (No such file or directory); mend it or take it out of the list"
    assert str(error.value) == f"{files[3]} {reason}"


def test_every_file_is_read_once_for_all_models(files, clips, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or original(file))
    encode_images(clips, files, 0)
    assert opened == files
