import io
import logging

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rlcf.adapt.groups import Unreadable
from rlcf.adapt.views import PlannedViews, Views
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError
from rlcf.inputs.images import as_image, large_enough, read_image
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


# ---- one file ----


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_every_mode_is_read_as_rgb(tmp_path, mode):
    file = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    picture(mode=mode).save(file)
    image = read_image(file)
    assert image.mode == "RGB" and image.size == (20, 14)


def test_what_a_file_is_named_does_not_matter(tmp_path):
    picture().save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jpg"), picture())


def bad_file(folder, kind):
    """A file that is no readable image, and what is said of it."""
    file = folder / "x.jpg"
    if kind == "text":
        file.write_text("this is no picture\n")
        return file, "cannot identify image file"
    if kind == "empty":
        file.write_bytes(b"")
        return file, "cannot identify image file"
    if kind == "folder":
        file.mkdir()
        return file, "Is a directory"
    if kind == "missing":
        return file, "No such file or directory"
    stream = io.BytesIO()
    picture().save(stream, "JPEG")
    file.write_bytes(stream.getvalue()[:-80])
    return file, "image file is truncated"


@pytest.mark.parametrize("draft", [None, (1, 1)])
@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "missing", "folder"])
def test_a_file_that_is_no_image_is_told_once_with_its_path_and_the_reason(tmp_path, kind, draft):
    file, reason = bad_file(tmp_path, kind)
    with pytest.raises(UserError) as error:
        read_image(file, draft)
    assert str(error.value).startswith(f"{file} cannot be read as an image ({reason}")
    assert str(error.value).count(str(file)) == 1 and str(error.value).endswith(")")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM"])
@given(data=st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_told_and_nothing_else(kind, data, tmp_path_factory):
    stream = io.BytesIO()
    picture(size=(19, 17)).save(stream, kind)
    content = bytearray(stream.getvalue()[: data.draw(st.integers(0, len(stream.getvalue())))])
    for place in data.draw(st.lists(st.integers(0, max(len(content) - 1, 0)), max_size=3)) if content else []:
        content[place] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(content)
    try:
        assert read_image(file, data.draw(st.sampled_from([None, (1, 1)]))).mode == "RGB"
    except UserError as error:
        assert str(file) in str(error)


def test_a_picture_of_more_pixels_than_pillow_allows_is_told(tmp_path, monkeypatch):
    picture().save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match=r"x.png cannot be read as an image \(Image size"):
        read_image(tmp_path / "x.png")


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


# ---- one image, however it is given ----


def test_an_image_may_be_a_picture_a_file_or_a_tensor(files):
    expected = np.asarray(read_image(files[0]))
    pixels = torch.from_numpy(expected.copy()).permute(2, 0, 1)
    for image_or_file in (read_image(files[0]), files[0], str(files[0]), pixels, pixels.float() / 255):
        image = as_image(image_or_file)
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), expected)


def test_a_picture_of_another_mode_becomes_rgb():
    assert as_image(picture(mode="L")).mode == "RGB"


def test_a_float_tensor_outside_of_0_to_1_is_clamped():
    image = as_image(torch.tensor([-1.0, 0.5, 2.0]).view(3, 1, 1))
    assert image.getpixel((0, 0)) == (0, 128, 255)


@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8), (8, 8, 3), (2, 3, 8, 8)])
def test_a_tensor_of_another_shape_is_told(shape):
    with pytest.raises(UserError, match=r"^an image tensor must be \(3, H, W\), not \("):
        as_image(torch.zeros(shape))


@pytest.mark.parametrize(
    "image",
    [
        None,
        3,
        b"x.png",
        np.zeros((8, 8, 3), dtype=np.uint8),
        torch.zeros(3, 8, 8, dtype=torch.long),
        torch.zeros(3, 0, 8),
        Image.new("RGB", (0, 8)),
    ],
    ids=["None", "int", "bytes", "array", "whole numbers", "empty tensor", "empty picture"],
)
def test_what_is_no_image_is_told(image):
    with pytest.raises(UserError, match=r"^an image (tensor )?must "):
        as_image(image)


def test_an_opened_picture_whose_file_is_damaged_is_told(tmp_path):
    file = tmp_path / "x.png"
    picture(size=(200, 200)).save(file)
    file.write_bytes(file.read_bytes()[:20000])
    with Image.open(file) as opened, pytest.raises(UserError, match=r"^a PIL image cannot be read \("):
        as_image(opened)


def test_a_file_in_the_home_folder_is_found(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files[0].parent))
    assert as_image(f"~/{files[0].name}").size == read_image(files[0]).size


# ---- drafts ----


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A smooth JPEG of 4000 x 3000 pixels."""
    file = tmp_path_factory.mktemp("photo") / "x.jpg"
    picture(size=(16, 12)).resize((4000, 3000), Image.Resampling.BICUBIC).save(file)
    return file


def test_a_draft_of_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(photo):
    assert read_image(photo).size == (4000, 3000)
    assert read_image(photo, (224, 224)).size == (2000, 1500)
    assert read_image(photo, (64, 64)).size == (500, 375)


def test_views_of_a_draft_are_close_to_those_of_the_whole_image(photo):
    views = Views(lambda image: torch.zeros(3, 96, 96), (96, 96), count=16, seed=2)
    whole, draft = (views(read_image(photo, size), 0)[1:].float() for size in (None, (96, 96)))
    assert (whole - draft).abs().mean(dim=(1, 2, 3)).max() < 3


def test_a_jpeg_that_is_not_much_larger_than_its_views_is_decoded_whole(tmp_path):
    picture(size=(500, 375)).save(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jpg", (224, 224)), read_image(tmp_path / "x.jpg"))


def test_a_draft_keeps_a_views_pixels_in_the_smallest_crop():
    assert large_enough((224, 224)) == (792, 792) and large_enough((8, 12)) == (43, 29)
    for size in ((224, 224), (336, 336), (8, 12), (1, 1)):
        width, height = large_enough(size)
        assert 0.08 * width * height >= size[0] * size[1]


@given(width=st.integers(5, 500), height=st.integers(5, 500))
def test_a_draft_is_the_whole_image_or_large_enough(width, height, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "plain.jpg"
    Image.new("RGB", (width, height)).save(file)
    drafted = read_image(file, (8, 12)).size
    assert drafted == (width, height) or (drafted[0] >= 43 and drafted[1] >= 29)
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or (width // s >= 43 and height // s >= 29))
    assert drafted == (-(-width // scale), -(-height // scale))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_file_that_is_no_jpeg_has_no_draft(tmp_path, kind):
    picture(size=(90, 70)).save(tmp_path / "x", kind)
    assert np.array_equal(read_image(tmp_path / "x", (2, 2)), read_image(tmp_path / "x"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_draft_has_the_colours_and_the_orientation_of_the_whole(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter; no image is turned back, as in the published runs
    colours = Image.new("RGB", (80, 160), (200, 60, 20))
    colours.paste((20, 60, 200), (0, 80, 80, 160))
    colours.convert(mode).save(tmp_path / "x.jpg", exif=exif)
    whole, draft = read_image(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg", (4, 4))
    assert draft.mode == "RGB" and whole.size == (80, 160) and draft.size == (20, 40)
    difference = np.abs(np.asarray(whole.resize((20, 40)), dtype=int) - np.asarray(draft))
    assert np.median(difference) <= 2 and difference.mean() < 4


# ---- many files ----


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
