"""Pictures as people have them are read as people see them."""

import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from rlcf.adapt.views import Views
from rlcf.errors import UserError
from rlcf.inputs.images import as_image, large_enough, read_image
from rlcf.inputs.sources import StoredImage

RNG = np.random.default_rng(5)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((50, 40)))
GREY = SMOOTH[..., 0]
TURNED = {1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud}
TURNED |= {
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
    8: lambda p: np.rot90(p, -1),
}
"""EXIF orientation -> how an upright picture lies in a file that has it."""


def picture(seed=0, size=(20, 14), mode="RGB"):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def saved(folder, image, name="x.png", **settings):
    image.save(folder / name, **settings)
    return folder / name


def pixels(file, **settings):
    return np.asarray(read_image(file, **settings)).astype(int)


def far(first, second):
    """The largest difference of two pictures' pixels."""
    return np.abs(np.asarray(first).astype(int) - np.asarray(second).astype(int)).max()


def three(grey):
    return np.stack([grey] * 3, axis=-1)


# ---- orientation ----


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_tell(tmp_path, kind, value):
    exif = Image.Exif()
    exif[0x0112] = value
    lying = Image.fromarray(np.ascontiguousarray(TURNED[value](SMOOTH)))
    exact = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    file = saved(tmp_path, lying, "x", format=kind, exif=exif, **exact)
    most = 12 if kind == "JPEG" else 0
    assert far(pixels(file), SMOOTH) <= most
    with Image.open(file) as opened:
        assert far(as_image(opened), SMOOTH) <= most


def test_orientation_in_xmp_counts_as_well(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    lying = Image.fromarray(np.ascontiguousarray(TURNED[6](SMOOTH)))
    file = saved(tmp_path, lying, "x.webp", lossless=True, xmp=xmp)
    with Image.open(file) as opened:
        known = far(ImageOps.exif_transpose(opened).convert("RGB"), SMOOTH) == 0 if opened.height == 50 else False
    assert (far(pixels(file), SMOOTH) == 0) if known else pixels(file).shape == (50, 40, 3)


@pytest.mark.parametrize("value", [0, 9, 700])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    assert far(pixels(saved(tmp_path, Image.fromarray(SMOOTH), exif=exif)), SMOOTH) == 0


def test_damaged_exif_data_do_not_cost_the_picture(tmp_path):
    file = saved(tmp_path, Image.fromarray(SMOOTH), exif=b"Exif\0\0II*\0\xff\xff\xff\xff and no more")
    assert far(pixels(file), SMOOTH) == 0


def test_a_picture_that_was_made_upright_already_is_not_turned_again(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = saved(tmp_path, Image.fromarray(np.ascontiguousarray(TURNED[6](SMOOTH))), exif=exif)
    with Image.open(file) as opened:
        assert far(as_image(ImageOps.exif_transpose(opened)), SMOOTH) == 0


def test_the_published_code_reads_pictures_as_they_lie_and_see_through(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = np.ascontiguousarray(TURNED[6](SMOOTH))
    file = saved(tmp_path, Image.fromarray(lying), exif=exif)
    assert far(read_image(file, published=True), lying) == 0
    layer = np.dstack([SMOOTH, np.zeros_like(GREY)])
    assert far(read_image(saved(tmp_path, Image.fromarray(layer), "a.png"), published=True), SMOOTH) == 0


@pytest.mark.parametrize("value", [1, 6])
def test_a_draft_is_upright_and_large_enough(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    upright = Image.fromarray(SMOOTH).resize((640, 256), Image.Resampling.BICUBIC)
    lying = Image.fromarray(np.ascontiguousarray(TURNED[value](np.asarray(upright))))
    file = saved(tmp_path, lying, "x.jpg", exif=exif)
    draft = read_image(file, (8, 24))  # wants 85 x 29
    assert draft.size == (160, 64) and far(draft, upright.resize((160, 64), Image.Resampling.BOX)) < 40


# ---- depth ----

DEEP = {
    "16 bits": (GREY.astype(np.uint16) * 257, "png"),
    "16 bits, TIFF": (GREY.astype(np.uint16) * 257, "tif"),
    "16 bits, big-endian": (GREY.astype(">u2") * 257, "tif"),
    "32 bits of a byte": (GREY.astype(np.int32), "tif"),
    "32 bits of two bytes": (GREY.astype(np.int32) * 257, "tif"),
    "32 bits, whole": (GREY.astype(np.int32) * ((2**31 - 1) // 255), "tif"),
    "floats in 0..1": (GREY.astype(np.float32) / 255, "tif"),
    "floats in 0..255": (GREY.astype(np.float32), "tif"),
    "floats in 0..65535": (GREY.astype(np.float32) * 257, "tif"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_deep_pictures_are_scaled_to_8_bits(tmp_path, kind):
    numbers, suffix = DEEP[kind]
    image = Image.fromarray(numbers)
    for found in (as_image(image), read_image(saved(tmp_path, image, f"x.{suffix}"))):
        assert found.mode == "RGB" and far(found, three(GREY)) <= 1


def tiff(numbers, bits, kind, nought=1):
    """The bytes of a grey TIFF file. kind: of its numbers, 1 unsigned, 2 signed, 3 float; nought: 0 white, 1 black."""
    height, width = numbers.shape
    data = numbers.tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, nought), (273, 8), (277, 1), (278, height)]
    tags += [(279, len(data)), (339, kind)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    return head + data + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


@pytest.mark.parametrize(
    ("numbers", "bits", "kind"),
    [
        (GREY.astype("<u4") * (2**32 // 256), 32, 1),
        (GREY.astype("<i4") * (2**31 // 256), 32, 2),
        (GREY.astype("<i2") * 128, 16, 2),
    ],
    ids=["unsigned 32", "signed 32", "signed 16"],
)
def test_tiff_files_tell_how_deep_they_are(tmp_path, numbers, bits, kind):
    (tmp_path / "x.tif").write_bytes(tiff(numbers, bits, kind))
    assert far(pixels(tmp_path / "x.tif"), three(GREY)) <= 2


def test_nought_may_be_white(tmp_path):
    (tmp_path / "x.tif").write_bytes(tiff(65535 - GREY.astype("<u2") * 257, 16, 1, nought=0))
    assert far(pixels(tmp_path / "x.tif"), three(GREY)) <= 1


def test_numbers_a_little_beyond_their_range_are_cut():
    floats = GREY.astype(np.float32) / 255 * 1.2 - 0.1
    found = np.asarray(as_image(Image.fromarray(floats)))
    assert far(found, three(np.rint(np.clip(floats * 255, 0, 255)))) <= 1


def test_a_black_picture_of_any_depth_is_black():
    for kind in (np.uint16, np.int32, np.float32):
        assert np.asarray(as_image(Image.fromarray(np.zeros((9, 9), kind)))).max() == 0


def test_numbers_that_are_not_finite_are_told(tmp_path):
    numbers = GREY.astype(np.float32)
    numbers[3, 4] = np.nan
    with pytest.raises(UserError, match=r"x.tif cannot be read as an image \(some of its numbers are NaN"):
        read_image(saved(tmp_path, Image.fromarray(numbers), "x.tif"))


# ---- transparency and colours ----

ALPHA = np.zeros_like(GREY)
ALPHA[:, 10:30], ALPHA[:, 30:] = 128, 255
ON_WHITE = np.rint(255 + (SMOOTH.astype(float) - 255) * (ALPHA[..., None] / 255)).astype(int)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_transparent_parts_lie_on_white(tmp_path, kind):
    layer = Image.fromarray(np.dstack([SMOOTH, ALPHA]))
    exact = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert far(pixels(saved(tmp_path, layer, "x", format=kind, **exact)), ON_WHITE) <= 1
    assert far(as_image(layer), ON_WHITE) <= 1


def test_grey_with_alpha_lies_on_white(tmp_path):
    layer = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    expected = np.rint(255 + (GREY.astype(float) - 255) * (ALPHA / 255))
    for found in (as_image(layer), read_image(saved(tmp_path, layer)), as_image(layer.convert("La"))):
        assert far(found, three(expected)) <= 2


def test_premultiplied_colours_lie_on_white(tmp_path):
    layer = Image.fromarray(np.dstack([SMOOTH, ALPHA])).convert("RGBa")
    assert far(as_image(layer), ON_WHITE) <= 2


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 8))
    for name in ("x.png", "x.gif"):
        found = pixels(saved(tmp_path, image, name, transparency=0))
        assert (found[:, :4] == 255).all() and (found[:, 4:] == (0, 0, 255)).all()
    half = pixels(saved(tmp_path, image, "half.png", transparency=bytes([128, 255])))
    assert far(half[0, 0], (255, 127, 127)) <= 1 and (half[:, 4:] == (0, 0, 255)).all()


@pytest.mark.parametrize(
    ("mode", "hidden", "seen"),
    [("L", 7, 90), ("RGB", (7, 8, 9), (90, 80, 70)), ("1", 0, 255), ("I;16", 700, 90 * 257)],
)
def test_a_colour_that_png_calls_transparent_is_white(tmp_path, mode, hidden, seen):
    image = Image.new(mode, (8, 8), seen)
    for x, y in np.ndindex(4, 8):
        image.putpixel((x, y), hidden)
    file = saved(tmp_path, image, transparency=hidden)
    found = pixels(file)
    expected = seen if isinstance(seen, tuple) else min(seen, 255) if mode != "I;16" else 90
    assert (found[:, :4] == 255).all() and far(found[:, 4:], np.broadcast_to(expected, (8, 4, 3))) <= 1


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_printers_colours_are_screens_colours(tmp_path, suffix):
    exact = {"quality": 98, "subsampling": 0} if suffix == "jpg" else {}
    file = saved(tmp_path, Image.fromarray(SMOOTH).convert("CMYK"), f"x.{suffix}", **exact)
    assert far(pixels(file), SMOOTH) <= 12


def test_lab_colours_are_screens_colours(tmp_path):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    lab = ImageCms.profileToProfile(Image.fromarray(SMOOTH), *profiles, outputMode="LAB")
    for found in (as_image(lab), read_image(saved(tmp_path, lab, "x.tif"))):
        assert np.abs(np.asarray(found).astype(int) - SMOOTH).mean() < 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "x", kind, save_all=True, append_images=frames[1:])
    assert far(pixels(tmp_path / "x"), np.broadcast_to((255, 0, 0), (9, 9, 3))) <= 2


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA", "YCbCr"])
def test_every_mode_is_read_as_rgb(tmp_path, mode):
    file = saved(tmp_path, picture(mode=mode), "x.tif" if mode in ("CMYK", "YCbCr") else "x.png")
    for published in (False, True):
        image = read_image(file, published=published)
        assert image.mode == "RGB" and image.size == (20, 14)


@pytest.mark.parametrize(
    "suffix", ["gif", "jfif", "jpe", "avif", "jp2", "bmp", "ppm", "tga", "ico", "qoi", "pcx", "webp"]
)
def test_every_format_of_pillows_is_read(tmp_path, suffix):
    flat = Image.new("RGB", (32, 32), (200, 40, 60))
    try:
        flat.save(tmp_path / f"x.{suffix}")
    except (OSError, KeyError, ValueError):
        pytest.skip(f"this Pillow does not write {suffix}")
    assert far(pixels(tmp_path / f"x.{suffix}"), np.asarray(flat)) <= 8


def test_what_a_file_is_named_does_not_matter(tmp_path):
    picture().save(tmp_path / "x.png")
    (tmp_path / "x.png").rename(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jpg"), picture())


# ---- rows of stored datasets ----


class Held:
    """A row for each of some encoded pictures."""

    name = "hf:held"

    def __init__(self, *held):
        self.held = held

    def __len__(self):
        return len(self.held)

    def picture(self, row):
        return self.held[row]


def test_a_row_is_read_as_a_file_is(tmp_path):
    file = saved(tmp_path, Image.fromarray(np.dstack([SMOOTH, ALPHA])))
    rows = Held(file.read_bytes(), b"no picture")
    assert np.array_equal(read_image(StoredImage(rows, 0, "000000")), read_image(file))
    with pytest.raises(UserError, match=r"^row 1 of hf:held cannot be read as an image \(cannot identify"):
        read_image(StoredImage(rows, 1, "000001"))


# ---- files that are none ----


def test_heic_is_told_with_what_to_do(tmp_path):
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    (tmp_path / "x.jpg").write_bytes(head)
    for source in (tmp_path / "x.jpg", StoredImage(Held(head), 0, "0")):
        with pytest.raises(UserError, match=r"it is HEIC, as telephones write it; convert it to JPEG"):
            read_image(source)


def test_arrays_and_tensors_that_are_not_finite_are_told():
    with pytest.raises(UserError, match=r"not of type ndarray; PIL's Image.fromarray makes an image of it"):
        as_image(SMOOTH)
    with pytest.raises(UserError, match=r"numbers that are NaN or infinite"):
        as_image(torch.full((3, 4, 4), float("nan")))


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


# ---- one image, however it is given ----


@pytest.fixture
def files(tmp_path):
    """Two pictures of different sizes."""
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for i, path in enumerate(paths):
        picture(i, (30 + 5 * i, 60 - 4 * i)).save(path)
    return paths


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
def test_a_draft_has_the_colours_of_the_whole(tmp_path, mode):
    colours = Image.new("RGB", (80, 160), (200, 60, 20))
    colours.paste((20, 60, 200), (0, 80, 80, 160))
    colours.convert(mode).save(tmp_path / "x.jpg")
    whole, draft = read_image(tmp_path / "x.jpg"), read_image(tmp_path / "x.jpg", (4, 4))
    assert draft.mode == "RGB" and whole.size == (80, 160) and draft.size == (20, 40)
    difference = np.abs(np.asarray(whole.resize((20, 40)), dtype=int) - np.asarray(draft))
    assert np.median(difference) <= 2 and difference.mean() < 4
