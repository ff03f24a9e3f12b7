"""Files that bite: pictures of too many pixels, pipes and devices, programs, and what changes between two looks."""

import contextlib
import os
import pickle
import socket
import struct
import zlib

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from rlcf.adapt.groups import Unreadable
from rlcf.adapt.views import Views
from rlcf.errors import UserError
from rlcf.inputs.images import as_image, check_sides, read_image
from rlcf.inputs.lists import read_captions
from rlcf.run.images import ImageLoader, _as_array
from rlcf.run.memory import keep_freed_memory
from tests.faults import forked
from tests.tools import write_picture


def read_in_a_process_of_its_own(file, keep=False):
    """The resident bytes that a process took to make views of a file. keep: it keeps what it frees, as a run does."""

    def work(load):
        if keep:
            keep_freed_memory()
        views = Views(build_transform(64), (64, 64), count=4)
        if load:
            with contextlib.suppress(UserError):
                views(read_image(file), 0)

    return forked(lambda: work(True)).peak - forked(lambda: work(False)).peak


def black_png(file, width, height):
    """Writes a PNG of a bit a pixel. Returns the file."""
    packer, row = zlib.compressobj(1), bytes(1 + (width + 7) // 8)  # a filter, then the pixels
    packed = [packer.compress(row * min(1000, height - start)) for start in range(0, height, 1000)]
    chunks = {b"IHDR": struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0), b"IDAT": b"".join([*packed, packer.flush()])}
    parts = [
        struct.pack(">I", len(held)) + kind + held + struct.pack(">I", zlib.crc32(kind + held))
        for kind, held in [*chunks.items(), (b"IEND", b"")]
    ]
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return file


def build_transform(size):
    transform = image_transform_v2(PreprocessCfg(size=size), is_train=False)
    transform.transforms = transform.transforms[:-1]
    return transform


@pytest.mark.filterwarnings("ignore:Image size")  # pytest puts its own filters in place of the project's
@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((1, 300_000), r"of 1 x 300000 pixels one side is over 100 times the other; cut it"),
        ((40_000, 13), r"of 40000 x 13 pixels one side is over 100 times the other; cut it"),
        ((13_000, 13_000), r"13000 x 13000 pixels are more than 89,478,485; make it smaller"),
        ((20_000, 20_000), r"Image size \(400000000 pixels\) exceeds limit .*"),
    ],
)
def test_a_small_file_of_a_picture_too_large_or_too_narrow_takes_no_memory_and_is_told(tmp_path, size, reason):
    file = black_png(tmp_path / "x.png", *size)
    assert file.stat().st_size < 300_000
    assert read_in_a_process_of_its_own(file) < 20e6
    with pytest.raises(UserError, match=rf"^{file} cannot be read as an image \({reason}\)$"):
        read_image(file)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(9459, 9459), (945, 94_500)])
@pytest.mark.parametrize(("keep", "most"), [(False, 1.0e9), (True, 1.2e9)])
def test_the_largest_and_the_narrowest_picture_that_is_read_takes_about_a_gigabyte(tmp_path, size, keep, most):
    file = black_png(tmp_path / "x.png", *size)
    assert read_in_a_process_of_its_own(file, keep) < most


KINDS = {
    "16 bits": lambda size: (Image.new("I;16", size, 7), {}),
    "floats": lambda size: (Image.new("F", size), {}),
    "alpha": lambda size: (Image.new("RGBA", size), {}),
    "on its side": lambda size: (
        Image.new("RGB", size),
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_any_kind_takes_ten_bytes_a_pixel_at_most_beside_a_strip(kind, tmp_path):
    """So that one at the bound takes 0.9 GB."""
    image, how = KINDS[kind]((2500, 2400))
    file = tmp_path / ("x.tif" if kind == "floats" else "x.png")
    image.save(file, **how)
    image.close()
    peak = forked(lambda: read_image(file)).peak - forked(lambda: read_image(black_png(tmp_path / "y.png", 8, 8))).peak
    assert peak < 10 * 2500 * 2400 + 40e6


def test_the_pictures_of_published_datasets_are_within_the_bounds():
    for width, height in ((9331, 6530), (12_000, 600), (5005, 3646), (1, 1), (1, 100)):
        check_sides(width, height)


def test_pictures_and_tensors_of_python_have_the_same_bounds():
    for image in (Image.new("1", (1, 101)), torch.zeros(3, 101, 1)):
        with pytest.raises(UserError, match="one side is over 100 times the other"):
            as_image(image)


def test_a_pipe_a_device_and_a_folder_are_no_images_and_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "socket.png"))
        for kind in ("pipe", "folder", "device", "socket"):
            with pytest.raises(UserError, match=rf"{kind}.png cannot be read as an image \(.+\)$"):
                read_image(tmp_path / f"{kind}.png")


def test_a_list_that_is_a_pipe_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "list.json")
    with pytest.raises(UserError, match=r"list.json cannot be read as JSON \(it is a pipe"):
        read_captions(tmp_path / "list.json")


def test_a_program_that_calls_itself_an_image_is_not_run(tmp_path):
    (tmp_path / "x.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(UserError, match="PostScript is a program; convert it"):
        read_image(tmp_path / "x.jpg")


def iptc(content):
    """An IPTC file that holds a file of any kind."""
    told = {(3, 60): b"\x01\x00", (3, 20): b"\0\x08", (3, 30): b"\0\x08", (3, 120): b"\x05", (8, 10): content}
    fields = (b"\x1c%c%c" % tag + len(held).to_bytes(2, "big") + held for tag, held in told.items())
    return b"".join(fields)


def test_a_file_that_wraps_others_is_not_unwrapped(tmp_path):
    (tmp_path / "x.png").write_bytes(iptc(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"))
    with pytest.raises(UserError, match="it wraps a file of any other kind; take that out"):
        read_image(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image, pytest.raises(UserError, match="it wraps a file of any other kind"):
        as_image(image)


def test_an_image_that_is_gone_or_garbage_when_its_turn_comes_is_unreadable(tmp_path):
    files = [write_picture(tmp_path / f"{number}.png") for number in range(3)]
    loader = ImageLoader(files, range(3), lambda image, index: torch.tensor(np.asarray(image).mean())).one_by_one(0)
    next(loader)
    files[1].unlink()
    files[2].write_bytes(b"\x89PNG\r\n\x1a\n garbage")
    _, gone = next(loader)
    _, garbage = next(loader)
    assert isinstance(gone, Unreadable) and "No such file or directory" in gone.reason
    assert isinstance(garbage, Unreadable) and "cannot be read as an image" in garbage.reason


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (7,), (0, 3)])
def test_tensors_of_other_processes_are_equal_and_laid_out_alike(shape):
    tensor = torch.randn(shape)
    for given in (tensor, tensor.permute(*range(tensor.dim())[::-1])):
        make, arguments = _as_array(given)
        made = make(*pickle.loads(pickle.dumps(arguments)))
        assert torch.equal(made, given) and (given.numel() == 0 or made.stride() == given.stride())
