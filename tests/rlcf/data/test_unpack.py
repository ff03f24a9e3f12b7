"""Archives, honest and hostile."""

import io
import tarfile
import zipfile

import pytest

from rlcf.data.unpack import content, put, unpack
from rlcf.errors import UserError


def files_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.fixture
def unpacked(tmp_path):
    """Unpacks the bytes of an archive into a folder that has a neighbour; returns the folder."""

    def run(archive):
        (tmp_path / "target").mkdir()
        (tmp_path / "archive").write_bytes(archive)
        unpack(tmp_path / "archive", tmp_path / "target")
        return tmp_path / "target"

    return run


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "zip"])
def test_the_files_of_an_archive_are_written(mode, unpacked, tar_of, zip_of):
    files = {"a/x.jpg": b"1", "a/b/y.jpg": b"22", "./c.txt": b""}
    folder = unpacked(zip_of(files) if mode == "zip" else tar_of(files, mode))
    assert files_below(folder) == {"a/b/y.jpg": b"22", "a/x.jpg": b"1", "c.txt": b""}


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/tmp/x", "..\\x", "C:\\x", "a/../x"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_that_leads_out_of_the_target_is_refused(name, kind, unpacked, tar_of, zip_of, tmp_path):
    files = {"first": b"1", name: b"2"}
    with pytest.raises(UserError, match="a file outside of the target folder, "):
        unpacked(tar_of(files) if kind == "tar" else zip_of(files))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "target"]


@pytest.mark.parametrize(
    "member",
    [
        special("x", tarfile.SYMTYPE, "/etc/passwd"),
        special("x", tarfile.SYMTYPE, "../../x"),
        special("x", tarfile.LNKTYPE, "../x"),
        special("x", tarfile.FIFOTYPE),
        special("x", tarfile.CHRTYPE),
    ],
    ids=lambda member: f"{member.type.decode()}{member.linkname.replace('/', '-')}",
)
def test_links_and_devices_are_refused(member, unpacked, tar_of):
    with pytest.raises(UserError, match="a link or a device, x; nothing of it was kept"):
        unpacked(tar_of({"x": member}))


def test_a_link_in_a_zip_is_refused(unpacked, zip_of, tmp_path):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        info = zipfile.ZipInfo("x")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="a link or a device, x"):
        unpacked(held.getvalue())


@pytest.mark.parametrize("cut", [0, 100, 3000])
@pytest.mark.parametrize("mode", ["w:gz", "zip"])
def test_an_archive_that_is_cut_is_told(cut, mode, unpacked, tar_of, zip_of):
    files = {"a": bytes(range(256)) * 100, "b": b"2"}
    whole = zip_of(files) if mode == "zip" else tar_of(files, mode)
    with pytest.raises(UserError, match=r"is no whole tar or zip archive .*; delete it and get it again"):
        unpacked(whole[: min(cut, len(whole) - 30)])


def test_a_single_folder_around_the_content_is_passed_through(unpacked, tar_of):
    folder = unpacked(tar_of({"imagenet-a/n1/x": b"1", "imagenet-a/n2/x": b"1", "__MACOSX/x": b""}))
    assert sorted(path.name for path in content(folder).iterdir()) == ["n1", "n2"]


def test_the_wanted_folder_or_archive_of_an_archive_is_found(unpacked, tar_of, zip_of, tmp_path):
    inner = tar_of({"101/a/x": b"1", "101/b/x": b"1"}, "w:gz")
    folder = unpacked(zip_of({"top/data/v.txt": b"1", "top/c/101.tar.gz": inner, "__MACOSX/data/x": b""}))
    assert files_below(content(folder, "data")) == {"v.txt": b"1"}
    assert files_below(content(folder, "101.tar.gz")) == {"a/x": b"1", "b/x": b"1"}
    with pytest.raises(UserError, match="the archive holds no more"):
        content(folder, "more")


def test_what_is_there_already_stays_as_it_is(tmp_path):
    for path in ("new/a/x", "new/b/x", "old/a/y"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"1")
    assert put(tmp_path / "new", tmp_path / "old") == ["a"]
    assert sorted(files_below(tmp_path / "old")) == ["a/y", "b/x"]
