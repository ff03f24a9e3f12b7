"""`rlcf-data get` from a server on this machine."""

import errno
import hashlib
import json
import os
from dataclasses import replace

import pytest

from rlcf.data import catalogue
from rlcf.data.catalogue.captions import NOCAPS_FILE
from rlcf.data.catalogue.weights import TRAIN_SET
from rlcf.data.entries import Download
from rlcf.data.main import main
from rlcf.errors import UserError


@pytest.fixture
def serve(server, monkeypatch):
    """Puts the downloads of an entry onto the server, each a body by its `to`; checksums are those of the bodies."""

    def put(name, bodies, **page):
        entry = catalogue.CATALOGUE[name]
        downloads = []
        for download in entry.downloads:
            if download.to in bodies:
                url = server.put(f"{name}/{download.name}", bodies[download.to], **page)
                digest = f"sha256:{hashlib.sha256(bodies[download.to]).hexdigest()}"
                size = len(bodies[download.to])
            else:
                url, digest, size = server.url("gone"), download.digest, download.size
            downloads.append(replace(download, urls=(url,), digest=digest if download.digest else None, size=size))
        monkeypatch.setitem(catalogue.CATALOGUE, name, replace(entry, downloads=tuple(downloads)))

    return put


def get(tmp_path, *names):
    main(["get", *names, "--data", str(tmp_path)])


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_archive_is_unpacked_into_the_published_layout(serve, tar_of, tmp_path, capsys):
    serve("A", {"": tar_of({"imagenet-a/n01498041/x.jpg": b"1", "imagenet-a/n01531178/x.jpg": b"1"})})
    get(tmp_path, "imagenet-a")
    assert names_in(tmp_path / "dataset" / "tta_data") == ["imagenet-a"]
    assert names_in(tmp_path / "dataset" / "tta_data" / "imagenet-a") == ["n01498041", "n01531178"]
    assert f"A is in {tmp_path}/dataset/tta_data/imagenet-a" in capsys.readouterr().out


def test_what_is_there_is_not_fetched_again(serve, tar_of, tmp_path, server):
    serve("A", {"": tar_of({"imagenet-a/n01498041/x.jpg": b"1", "imagenet-a/n01531178/x.jpg": b"1"})})
    get(tmp_path, "A")
    get(tmp_path, "A")
    assert len(server.asked) == 1


def test_it_goes_beside_others_of_its_kind(serve, tar_of, tmp_path):
    (tmp_path / "tta_data" / "imagenet-r" / "n01443537").mkdir(parents=True)
    serve("A", {"": tar_of({"imagenet-a/n01498041/x.jpg": b"1", "imagenet-a/n01531178/x.jpg": b"1"})})
    get(tmp_path, "A")
    assert names_in(tmp_path / "tta_data") == ["imagenet-a", "imagenet-r"]


def test_an_archive_that_somebody_put_there_is_unpacked_if_it_is_the_right_one(serve, tar_of, tmp_path, server):
    body = tar_of({"imagenet-a/n01498041/x.jpg": b"1", "imagenet-a/n01531178/x.jpg": b"1"})
    serve("A", {"": body})
    place = tmp_path / "dataset" / "tta_data"
    place.mkdir(parents=True)
    (place / "imagenet-a.tar").write_bytes(body)
    get(tmp_path, "A")
    assert not server.asked and names_in(place) == ["imagenet-a"]


def test_a_hostile_archive_leaves_nothing(serve, tar_of, tmp_path):
    serve("A", {"": tar_of({"imagenet-a/x": b"1", "../../outside": b"1"})})
    with pytest.raises(UserError, match="outside of the target folder"):
        get(tmp_path, "A")
    assert names_in(tmp_path) == ["dataset"] and names_in(tmp_path / "dataset") == ["tta_data"]
    assert names_in(tmp_path / "dataset" / "tta_data") == ["imagenet-a.tar"]


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing_half_and_the_same_command_goes_on(
    serve, tar_of, tmp_path, monkeypatch, server
):
    serve("A", {"": tar_of({"imagenet-a/n01498041/x.jpg": b"1", "imagenet-a/n01531178/x.jpg": b"1"})})

    def full(*words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("rlcf.data.unpack.shutil.copyfileobj", full)
        with pytest.raises(UserError, match=r"cannot write .*imagenet-a \(No space left on device\); make room there"):
            get(tmp_path, "A")
    place = tmp_path / "dataset" / "tta_data"
    assert names_in(place) == ["imagenet-a.tar"]
    (place / ".imagenet-a.unpacking" / "of a killed process").mkdir(parents=True)
    get(tmp_path, "A")
    assert len(server.asked) == 1 and names_in(place) == ["imagenet-a"]


def test_corruptions_share_a_folder(serve, tar_of, tmp_path):
    for name, held in (("C-noise", ["gaussian_noise", "shot_noise", "impulse_noise"]), ("C-blur", ["defocus_blur"])):
        files = {f"{corruption}/5/n01440764/x.JPEG": b"1" for corruption in held}
        serve(name, {"": tar_of(files | {"README": b""})})
    get(tmp_path, "C-noise", "C-blur")
    found = names_in(tmp_path / "dataset" / "tta_data" / "imagenet-c")
    assert found == ["README", "defocus_blur", "gaussian_noise", "impulse_noise", "shot_noise"]


def test_a_clip_goes_into_the_clip_root(serve, tmp_path, capsys):
    serve("ViT-B/16", {"ViT-B-16.pt": b"weights"})
    main(["get", "ViT-B-16", "--data", str(tmp_path), "--clip-root", str(tmp_path / "clips")])
    assert (tmp_path / "clips" / "ViT-B-16.pt").read_bytes() == b"weights"
    assert f"ViT-B/16 is in {tmp_path}/clips/ViT-B-16.pt" in capsys.readouterr().out


def test_a_wrong_checksum_leaves_nothing_and_is_told(serve, server, tmp_path):
    serve("ViT-B/16", {"ViT-B-16.pt": b"weights"})
    next(iter(server.pages.values())).body = b"WEIGHTS"
    with pytest.raises(UserError, match=r"the checksum sha256:\w+ in place of sha256:\w+; it was deleted"):
        get(tmp_path, "ViT-B/16")
    assert names_in(tmp_path / "pretrained" / "clip") == []


def test_a_dead_address_tells_the_steps_and_what_else_is_dead(serve, tmp_path, capsys):
    serve("eurosat", {})
    with pytest.raises(UserError, match="answers 404"):
        get(tmp_path, "eurosat")
    assert "dead: http://madm.dfki.de/files/sentinel/EuroSAT.zip" in capsys.readouterr().err


def test_a_fine_grained_set_comes_with_its_split(serve, zip_of, tar_of, tmp_path):
    inner = tar_of({"101_ObjectCategories/crab/x.jpg": b"1", "101_ObjectCategories/ant/x.jpg": b"1"}, "w:gz")
    archive = zip_of({"caltech-101/101_ObjectCategories.tar.gz": inner, "caltech-101/Annotations.tar": b"1"})
    serve("caltech101", {"101_ObjectCategories": archive, "split_zhou_Caltech101.json": b"{}"})
    get(tmp_path, "caltech101")
    folder = tmp_path / "dataset" / "finegrained-dataset" / "caltech-101"
    assert names_in(folder) == ["101_ObjectCategories", "split_zhou_Caltech101.json"]
    assert names_in(folder / "101_ObjectCategories") == ["ant", "crab"]


def test_what_needs_an_account_is_told_step_by_step(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        get(tmp_path, "I")
    told = capsys.readouterr().out
    assert stop.value.code == 1 and "1. make an account at image-net.org" in told
    assert f"convert imagenet-val FLAT --data {tmp_path}" in told and "{" not in told


def test_the_lists_are_fetched_where_the_images_need_a_person(serve, tmp_path, capsys):
    listed = json.dumps([{"image": "flickr30k-images/1.jpg", "caption": ["a dog"]}]).encode()
    serve("flickr30k", {"flickr30k_test.json": listed})
    with pytest.raises(SystemExit):
        get(tmp_path, "flickr30k")
    folder = tmp_path / "dataset" / "flickr30k"
    assert (folder / "flickr30k_test.json").read_bytes() == listed
    assert f"{folder}/flickr30k-images holds 31,783 files" in capsys.readouterr().out
    (folder / "flickr30k-images").mkdir()
    get(tmp_path, "flickr30k")
    assert f"flickr30k is in {folder}" in capsys.readouterr().out


def test_nocaps_images_come_from_the_addresses_in_its_list(serve, server, tmp_path):
    urls = {f"{i}.jpg": server.put(f"val/{i}.jpg", f"image {i}".encode()) for i in range(20)}
    images = [{"id": i, "file_name": name, "coco_url": url} for i, (name, url) in enumerate(urls.items())]
    body = json.dumps({"images": images, "annotations": []}).encode()
    serve("nocaps", {NOCAPS_FILE: body})
    del server.pages["/val/7.jpg"]
    with pytest.raises(UserError, match=r"1 of 20 images did not come; the same command asks again: .*7\.jpg"):
        get(tmp_path, "nocaps")
    server.put("val/7.jpg", b"image 7")
    asked = len(server.asked)
    get(tmp_path, "nocaps")
    assert len(server.asked) == asked + 1
    assert (tmp_path / "dataset" / "nocaps" / "val" / "7.jpg").read_bytes() == b"image 7"


@pytest.mark.parametrize("name", ["../x.jpg", "a/b.jpg", ".x"])
def test_a_list_cannot_name_images_outside_of_their_folder(name, serve, tmp_path):
    body = json.dumps({"images": [{"id": 0, "file_name": name, "coco_url": "http://127.0.0.1:9/"}]}).encode()
    serve("nocaps", {NOCAPS_FILE: body})
    with pytest.raises(UserError, match="no plain file name"):
        get(tmp_path, "nocaps")


def test_one_that_fails_does_not_keep_the_others_from_coming(serve, tmp_path, capsys):
    serve("R", {})
    serve("ViT-B/16", {"ViT-B-16.pt": b"weights"})
    with pytest.raises(UserError, match="1 of 2 did not come: R; the same command asks again"):
        get(tmp_path, "R", "ViT-B/16")
    assert (tmp_path / "pretrained" / "clip" / "ViT-B-16.pt").is_file()
    assert "error: R: http://127.0.0.1" in capsys.readouterr().err


def test_an_unknown_name_is_told_with_the_near_one(tmp_path):
    with pytest.raises(UserError, match="unknown name 'imagnet-a'; did you mean 'imagenet-a'"):
        get(tmp_path, "imagnet-a")


def test_a_published_archive_lands_where_the_launchers_look(serve, zip_of, tmp_path):
    serve("clipcap", {"": zip_of({"clipcap_opt125m_transformer_coco_01/ckpt-latest.pt": b"1"})})
    (tmp_path / "output" / "other").mkdir(parents=True)
    get(tmp_path, "clipcap")
    assert (tmp_path / "output" / "clipcap_opt125m_transformer_coco_01" / "ckpt-latest.pt").read_bytes() == b"1"


def test_published_features_go_beside_the_lists(serve, zip_of, tmp_path):
    (tmp_path / "dataset" / "coco2014" / "val2014").mkdir(parents=True)
    serve("coco-features", {"": zip_of({TRAIN_SET: b"1"})})
    get(tmp_path, "coco-features")
    assert names_in(tmp_path / "dataset" / "coco2014") == [TRAIN_SET, "val2014"]


def test_download_names_have_no_query():
    assert Download(("http://x/caltech-101.zip?download=1",), "").name == "caltech-101.zip"
    assert catalogue.CATALOGUE["ucf101"].downloads[0].name == "UCF-101-midframes.zip"
