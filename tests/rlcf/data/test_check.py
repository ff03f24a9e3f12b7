"""`rlcf-data check` on small datasets in the published layouts, right and wrong in each way that it knows."""

import hashlib
import json
import re
import shutil
from dataclasses import replace

import pytest

from demo.world import write_classification
from rlcf.data import catalogue, names
from rlcf.data.catalogue.captions import NOCAPS_FILE
from rlcf.data.catalogue.weights import OPENAI_FILES
from rlcf.data.entries import Expected
from rlcf.data.look import few, verdict
from rlcf.data.main import main
from rlcf.errors import UserError
from tests.tools import write_pictures

A = names.wnids("a")


@pytest.fixture
def expect(monkeypatch):
    """Lets an entry expect other numbers than the published dataset's."""

    def change(name, *numbers, **more):
        entry = replace(catalogue.CATALOGUE[name], expected=Expected(*numbers, **more))
        monkeypatch.setitem(catalogue.CATALOGUE, name, entry)

    return change


@pytest.fixture
def check(tmp_path, capsys):
    """What `rlcf-data check` prints, and its exit code."""

    def run(*arguments):
        try:
            main(["check", *arguments, "--data", str(tmp_path)])
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().out

    return run


@pytest.fixture
def adversarial(tmp_path, expect):
    """ImageNet-A with a picture a class; returns its folder."""
    expect("A", 200, 200)
    folder = tmp_path / "dataset" / "tta_data" / "imagenet-a"
    write_pictures(folder, ["one.png"])
    for wnid in names.wnids("a"):
        (folder / wnid).mkdir()
        shutil.copy(folder / "one.png", folder / wnid / "x.png")
    (folder / "one.png").unlink()
    return folder


def test_a_whole_dataset_is_right(check, adversarial):
    code, told = check("A")
    assert code == 0 and told.startswith(f"A: all right, in {adversarial}\n")
    assert "  200 class folders\n  200 images\n" in told


def test_without_names_all_that_is_there_is_checked_and_a_look_with_a_clip_that_is_there_is_offered(
    check, adversarial, tmp_path
):
    (tmp_path / "pretrained" / "clip").mkdir(parents=True)
    (tmp_path / "pretrained" / "clip" / "ViT-B-16.pt").write_bytes(b"short")
    code, told = check()
    assert code == 1 and told.startswith("A: all right") and "ViT-B/16: wrong" in told and "1 of 2 wrong" in told
    assert "--clip ViT-B/16 looks at a few images with a model" in told


def test_a_dataset_that_is_not_there_tells_where_and_how(check, tmp_path):
    code, told = check("A")
    assert code == 1 and f"not there; looked at {tmp_path}/imagenet-a" in told
    assert f"get A --data {tmp_path}" in told


SPOILT = {
    "no folder": (lambda root: shutil.rmtree(root / A[3]), "199 class folders in place of 200"),
    "empty folder": (lambda root: (root / A[3] / "x.png").unlink(), f"1 class folders hold no image: {A[3]}"),
    "strange folder": (lambda root: (root / "n00000001").mkdir(), "1 folders are no class of ImageNet-A: n00000001"),
    "loose image": (lambda root: shutil.copy(root / A[0] / "x.png", root / "y.png"), "1 images lie beside the class"),
    "empty image": (lambda root: (root / A[5] / "x.png").write_bytes(b""), "1 of the images looked at are empty or no"),
    "damaged": (lambda root: (root / A[0] / "x.png").write_bytes(b"GIF89"), "1 of the images looked at are empty or"),
    "too many": (lambda root: shutil.copy(root / A[0] / "x.png", root / A[0] / "y.png"), "201 images in place of"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_wrong_is_told_with_what_mends_it(kind, check, adversarial):
    spoil, told = SPOILT[kind]
    spoil(adversarial)
    code, said = check("A")
    assert code == 1 and f"wrong: {told}" in said and "to mend: take " in said


def v2(tmp_path, folders):
    root = tmp_path / "dataset" / "tta_data" / "imagenetv2-matched-frequency-format-val"
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        ([str(i) for i in range(1, 1001)], "numbered from 1: every label would be one too high"),
        ([f"{i:03}" for i in range(1000)], "the folders' numbers have leading zeros"),
        (names.wnids(), "the release of December 2020, with WordNet ids and 20 images a class"),
    ],
)
def test_copies_of_v2_with_other_folders_are_known(folders, told, check, tmp_path):
    v2(tmp_path, folders)
    code, said = check("V")
    assert code == 1 and told in said


def validation_images(root, count, shift):
    """Empty validation images in the folders of their classes, shifted by some classes."""
    wnids = names.wnids()
    for number, seen in enumerate(names.real_labels()[:count], start=1):
        label = min(seen) if seen else 0
        folder = root / wnids[(label + shift) % 1000]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"ILSVRC2012_val_{number:08}.JPEG").write_bytes(b"x")


@pytest.mark.parametrize("shift", [0, 1, -3])
def test_images_in_the_folders_of_other_classes_are_found_without_a_model(shift, check, tmp_path, expect):
    validation_images(tmp_path / "imagenet" / "images" / "val", 300, shift)
    _, told = check("I")
    if shift:
        assert re.search(r"wrong: only \d% of 2\d\d labels are what people saw", told)
        assert f"would be right if shifted by {-shift:+d}" in told
    else:
        assert "100% of " in told and "labels are what people saw in the images" in told


def test_each_part_of_imagenet_c_is_checked(check, tmp_path):
    root = tmp_path / "dataset" / "tta_data" / "imagenet-c"
    validation_images(root / "fog" / "5", 40, 0)
    validation_images(root / "snow" / "1", 40, 2)
    _, told = check("C")
    assert "fog/5: 100% of " in told and "wrong: snow/1: only 0% of " in told


def test_a_flat_validation_folder_is_told_with_the_command_that_sorts_it(check, tmp_path):
    flat = tmp_path / "dataset" / "tta_data" / "ImageNet" / "val"
    write_pictures(flat, ["ILSVRC2012_val_00000001.JPEG"])
    code, told = check("I")
    assert code == 1 and f"{flat} holds images and no class folders" in told
    assert f"convert imagenet-val {flat} --data {tmp_path}" in told


def test_the_installed_lists_of_imagenets_names_are_in_the_order_of_the_wordnet_ids(monkeypatch):
    assert all(count < 60 for count in names.libraries_disagree().values())
    shifted = names.clip_names()[1:] + names.clip_names()[:1]
    monkeypatch.setattr(names, "clip_names", lambda: shifted)
    assert names.libraries_disagree()["open_clip"] > 800


@pytest.fixture
def textures(tmp_path, expect):
    """DTD with three classes; returns a function that writes its split with the names given."""
    expect("dtd", 3, 3)
    folders = ["banded", "dotted", "woven"]
    root = tmp_path / "dataset" / "finegrained-dataset" / "dtd"
    write_pictures(root / "images", [f"{folder}/{folder}_1.jpg" for folder in folders])

    def split(*called):
        test = [[f"{folder}/{folder}_1.jpg", i, called[i]] for i, folder in enumerate(folders)]
        (root / "split_zhou_DescribableTextures.json").write_text(json.dumps({"train": [], "val": [], "test": test}))
        return root

    return split


def test_a_split_is_checked(check, textures):
    textures("banded", "dotted", "woven")
    code, told = check("dtd")
    assert code == 0 and "3 test images in the list\n  3 classes\n" in told and "names fit together" in told


def test_a_split_whose_names_are_shifted_is_found(check, textures):
    textures("dotted", "woven", "banded")
    code, told = check("dtd")
    assert code == 1 and "do not fit together in 3 of 3 classes: 'banded' is called 'dotted'" in told


def test_listed_images_that_are_not_there_are_counted(check, textures):
    (textures("banded", "dotted", "woven") / "images" / "woven" / "woven_1.jpg").unlink()
    code, told = check("dtd")
    assert code == 1 and "1 of 3 listed images are not there, such as " in told


def test_a_damaged_split_is_told(check, textures):
    (textures("a", "b", "c") / "split_zhou_DescribableTextures.json").write_text("{}")
    assert "is no split file" in check("dtd")[1]


def test_aircraft_is_checked(check, tmp_path, expect):
    expect("aircraft", 2, 2)
    root = tmp_path / "fgvc_aircraft"
    write_pictures(root / "images", ["1.jpg", "2.jpg"])
    (root / "variants.txt").write_text("707-320\nA380\n")
    (root / "images_variant_test.txt").write_text("1 707-320\n2 A380\n")
    assert check("aircraft")[0] == 0
    (root / "images_variant_test.txt").write_text("1 707-320\n2 A999\n")
    assert "names variants that variants.txt has not: A999" in check("aircraft")[1]


def test_a_caption_list_is_counted_and_its_images_looked_for(check, tmp_path, expect):
    expect("flickr30k", 2, captions=3)
    root = tmp_path / "dataset" / "flickr30k"
    write_pictures(root / "flickr30k-images", ["1.jpg", "2.jpg"])
    listed = [
        {"image": "flickr30k-images/1.jpg", "caption": ["a", "b"]},
        {"image": "flickr30k-images/2.jpg", "caption": ["c"]},
    ]
    (root / "annotations").mkdir()
    (root / "annotations" / "flickr30k_test.json").write_text(json.dumps(listed))
    code, told = check("flickr30k")
    assert code == 0 and "2 images in flickr30k_test.json\n  3 captions in flickr30k_test.json\n" in told
    (root / "flickr30k-images" / "2.jpg").unlink()
    assert "1 of 2 listed images are not there" in check("flickr30k")[1]
    expect("flickr30k", 1000, captions=5000)
    assert "2 images in flickr30k_test.json in place of 1,000" in check("flickr30k")[1]


def test_nocaps_is_counted_by_domain(check, tmp_path):
    root = tmp_path / "dataset" / "nocaps"
    write_pictures(root / "val", ["a.jpg"])
    images = [{"id": 0, "file_name": "a.jpg", "domain": "in-domain"}]
    captions = [{"image_id": 0, "id": 0, "caption": "x"}]
    (root / NOCAPS_FILE).write_text(json.dumps({"images": images, "annotations": captions}))
    code, told = check("nocaps-in-domain")
    assert code == 1 and "1 images of in-domain in place of 417" in told


def test_weights_are_told_by_their_checksum(check, tmp_path, monkeypatch):
    files = {name: file for name, (file, _, _) in OPENAI_FILES.items()}
    table = {name: (file, hashlib.sha256(name.encode()).hexdigest(), 1) for name, file in files.items()}
    monkeypatch.setattr("rlcf.data.check.OPENAI_FILES", table)
    clips = tmp_path / "pretrained" / "clip"
    clips.mkdir(parents=True)
    for file, held in (("ViT-B-16.pt", b"ViT-B/16"), ("ViT-L-14.pt", b"ViT-B/32"), ("RN50.pt", b"broken off")):
        (clips / file).write_bytes(held)
    assert "OpenAI's file, by its sha256" in check("ViT-B/16")[1]
    code, told = check("ViT-L/14")
    assert code == 1 and "it is OpenAI's ViT-B/32 under another name" in told and "name it ViT-B-32.pt" in told
    assert "10 bytes it is too short: a broken-off download" in check("RN50")[1]


def test_files_are_looked_for(check, tmp_path):
    place = tmp_path / "output" / "clipcap_opt125m_transformer_coco_01"
    place.mkdir(parents=True)
    (place / "ckpt-latest.pt").write_bytes(b"")
    assert "ckpt-latest.pt is empty" in check("clipcap")[1]
    (place / "ckpt-latest.pt").write_bytes(b"1")
    assert check("clipcap")[0] == 0


# ---- folders of one's own ----


@pytest.fixture
def photos(tmp_path):
    def write(folders, lines=None):
        for folder in folders:
            write_pictures(tmp_path / "photos" / folder, ["1.png", "2.png"])
        if lines is not None:
            (tmp_path / "names.txt").write_text("\n".join(lines))
        return ["folder:photos", *(["--classnames", str(tmp_path / "names.txt")] if lines is not None else [])]

    return write


def test_names_in_the_order_of_the_folders_are_right(check, photos):
    code, told = check(*photos(["red_fox", "sea_lion", "wolf"], ["red fox", "sea lion", "grey wolf"]))
    assert code == 0 and "fit together" in told


def test_names_in_another_order_are_found(check, photos):
    code, told = check(*photos(["red_fox", "sea_lion", "wolf"], ["sea lion", "grey wolf", "red fox"]))
    assert code == 1 and "'red fox' is called 'sea lion' and should be 'red fox'" in told


def test_names_of_wordnet_ids_are_compared_too(check, photos):
    folders = list(names.wnids()[:6])
    called = list(names.clip_names()[:6])
    assert check(*photos(folders, called))[0] == 0
    code, told = check(*photos(folders, [*called[1:], called[0]]))
    assert code == 1 and "'tench' is called 'goldfish' and should be 'tench'" in told


def test_numbered_folders_whose_sorted_order_is_another_are_told(check, photos):
    code, told = check(*photos([str(i) for i in range(12)], [f"name {i}" for i in range(12)]))
    assert code == 1 and "'10' or '2' may be meant; write 'folder<TAB>name' in each line" in told


def test_names_that_tell_their_folder_are_taken(check, photos):
    for lines in ([f"{i}\tname" for i in range(12)], [json.dumps({str(i): f"name {i}" for i in range(12)})]):
        code, told = check(*photos([str(i) for i in range(12)], lines))
        assert code == 0 and "12 class names" in told and "have no words in common: use --clip NAME" in told


def test_splits_are_no_classes(photos, tmp_path):
    photos(["train/fox", "val/fox"])
    with pytest.raises(UserError, match=r"holds splits and no classes \(train, val\); give one: folder:.*photos/val"):
        main(["check", "folder:photos", "--data", str(tmp_path)])


def test_a_wrong_number_of_names_is_told(check, photos):
    assert "holds 2 class names but there are 3 class folders" in check(*photos(["a", "b", "c"], ["a", "b"]))[1]


def test_a_look_with_a_model_finds_shifted_names(check, tmp_path):
    write_classification(tmp_path / "pictures", "clean", 1, seed=7)
    folders = sorted(path.name for path in (tmp_path / "pictures").iterdir() if path.is_dir())
    lines = [folder.replace("_", " ") for folder in folders]
    flags = ["folder:pictures", "--clip", "demo-student", "--classnames", str(tmp_path / "names.txt")]
    (tmp_path / "names.txt").write_text("\n".join(lines))
    code, told = check(*flags)
    assert code == 0 and "demo-student finds " in told
    (tmp_path / "names.txt").write_text("\n".join([lines[-1], *lines[:-1]]))
    code, told = check(*flags)
    assert code == 1 and "if labels are shifted by +1" in told


def test_the_verdict_on_a_models_answers():
    labels = list(range(100))
    assert not verdict(labels, labels, 100, "M").startswith("wrong")
    assert "98% if labels are shifted by -2" in verdict(labels, [98, 99, *range(98)], 100, "M")
    assert "the labels do not belong to the images" in verdict(labels, [7] * 100, 100, "M")


def test_few_images_of_many_classes_are_looked_at(tmp_path):
    samples = [(tmp_path / f"{label}-{i}", label) for label in range(1000) for i in range(5)]
    assert len(few(samples)) == 200 and {label for _, label in few(samples)} == set(range(0, 1000, 10))


def test_names_of_a_known_dataset_are_refused(tmp_path):
    with pytest.raises(UserError, match="--classnames goes with folder:PATH"):
        main(["check", "A", "--classnames", "x", "--data", str(tmp_path)])
