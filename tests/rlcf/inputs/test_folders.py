"""Which files of a folder are pictures, and what is left out."""

import os

import pytest

from rlcf.errors import UserError
from rlcf.inputs.folders import LeftOut, class_folders, image_suffixes, readable_name, scan
from tests.tools import write_pictures


def found(root):
    """The pictures below a folder by their paths, and what was left out."""
    left_out = LeftOut()
    return [file.relative_to(root).as_posix() for file in scan(root, left_out)], str(left_out)


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path):
    write_pictures(
        tmp_path, ["a.jpg", "._a.jpg", ".ipynb_checkpoints/a.jpg", ".thumbnails/b.jpg", "sub/b.JPG", "__MACOSX/c.jpg"]
    )
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).touch()
    assert found(tmp_path) == (["a.jpg", "sub/b.JPG"], "7 hidden")


def test_every_format_that_pillow_reads_is_a_picture_and_no_other_is(tmp_path):
    names = ["a.gif", "b.jfif", "c.jpe", "d.jp2", "e.PNG", "f.webp", "g.tif", "h.bmp"]
    for name in [*names, "notes.txt", "paper.pdf", "clip.mpg", "figure.eps", "data.h5", "noending"]:
        (tmp_path / name).touch()
    assert found(tmp_path) == (names, "6 with another ending (.eps, .h5, .mpg, .pdf, .txt, ...)")
    assert {".avif", ".gif", ".tiff"} & image_suffixes() >= {".gif", ".tiff"}


def test_links_are_followed_once_and_loops_end(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write_pictures(root, ["a/1.jpg"])
    write_pictures(outside, ["2.jpg", "deep/3.jpg"])
    (root / "b").symlink_to(outside)
    (root / "c").symlink_to(outside)  # the same folder again
    (root / "a" / "up").symlink_to(root)  # a loop
    (outside / "back").symlink_to(outside)  # another one
    (root / "d").symlink_to(root / "a")  # a folder that is there itself
    (root / "self").symlink_to(root / "self")
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "4.jpg").symlink_to(outside / "2.jpg")
    files, left_out = found(root)
    assert files == ["4.jpg", "a/1.jpg", "b/2.jpg", "b/deep/3.jpg"]
    assert left_out == "2 a broken link or no regular file, 4 a link to a folder that is in already"


def test_pipes_are_left_out(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    os.mkfifo(tmp_path / "b.jpg")
    assert found(tmp_path) == (["a.jpg"], "1 a broken link or no regular file")


def test_names_that_are_not_utf8_survive(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    (tmp_path / "a.jpg").rename(tmp_path / "caf\udce9.jpg")
    files, _ = found(tmp_path)
    assert files == ["caf\udce9.jpg"] and (tmp_path / files[0]).is_file()


def test_class_folders_are_sorted_without_hidden_ones(tmp_path):
    write_pictures(tmp_path, ["b/", "a/", ".cache/", "__MACOSX/", "loose.jpg"])
    (tmp_path / "c").symlink_to(tmp_path / "a")
    left_out = LeftOut()
    assert class_folders(tmp_path, left_out) == ["a", "b", "c"]
    assert str(left_out) == "2 hidden, 1 beside the class folders"


def test_a_folder_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(UserError, match=r"the folder .*nowhere cannot be read \(No such file or directory\)"):
        class_folders(tmp_path / "nowhere", LeftOut())


@pytest.mark.parametrize(("name", "text"), [("café", "café"), ("caf\udce9", "café"), ("sea_lion", "sea_lion")])
def test_a_name_is_read_as_utf8_or_else_as_latin1(name, text):
    assert readable_name(name) == text


def test_heic_among_what_is_left_out_is_told_with_what_to_do(tmp_path):
    (tmp_path / "IMG_1.HEIC").touch()
    left_out = LeftOut()
    assert scan(tmp_path, left_out) == []
    assert str(left_out) == "1 with another ending (.heic; HEIC is read once it is converted to JPEG)"
