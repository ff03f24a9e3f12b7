"""`rlcf-data convert`: what it writes is what the tasks read."""

import json
import os

import pytest

import caption.datasets
import retrieval.datasets
from classification.datasets import load_dataset
from clipscore.captions import match_captions
from rlcf.data import names
from rlcf.data.main import main
from rlcf.errors import UserError
from rlcf.inputs.json_files import read_json
from tests.tools import write_pictures


def convert(*arguments):
    main(["convert", *map(str, arguments)])


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


# ---- NoCaps ----

COUNTS = {"in-domain": 417, "near-domain": 2670, "out-domain": 1413}


def original_nocaps():
    domains = [domain for domain, count in COUNTS.items() for _ in range(count)]
    images = [{"id": i, "file_name": f"{i:04}.jpg", "domain": domain} for i, domain in enumerate(domains)]
    captions = [{"image_id": i, "id": 2 * i + j, "caption": f"caption {i} {j} "} for i in range(4500) for j in (0, 1)]
    return {"images": images, "annotations": captions}


def test_nocaps_becomes_a_list_and_references_of_each_domain(tmp_path, capsys):
    folder = tmp_path / "dataset" / "nocaps"
    convert("nocaps", write(tmp_path / "original.json", original_nocaps()), "--output", folder)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7 and f"{folder}/nocaps_val_417_in-domain.json" in printed
    write_pictures(folder / "val", ["0000.jpg"])
    for i in range(1, 4500):
        (folder / "val" / f"{i:04}.jpg").hardlink_to(folder / "val" / "0000.jpg")
    for domain, count in COUNTS.items():
        dataset = caption.datasets.load_dataset(f"nocaps-{domain}", str(tmp_path))
        assert len(dataset.samples) == count and all(len(sample.captions) == 2 for sample in dataset.samples)
    references = read_json(folder / "nocaps_val_417_in-domain_clipscore.json")
    found = match_captions({"0001.jpg": "a caption"}, folder / "val", references)
    assert found.references == [["caption 1 0", "caption 1 1"]]
    assert len(read_json(folder / "nocaps_val_4500_clipscore.json")) == 4500


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"images": [{"id": 0, "file_name": "a", "domain": "in-domain"}]}, "the test set has no captions"),
        ({"images": [{"id": 0, "file_name": "a"}], "annotations": []}, "is no original list of NoCaps"),
        ({"images": [{"id": 0, "file_name": "a", "domain": "x"}], "annotations": []}, "images of the domain x"),
        ([], "is no original list of NoCaps"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_another_file_than_nocaps_is_told(content, told, tmp_path):
    with pytest.raises(UserError, match=told):
        convert("nocaps", write(tmp_path / "x.json", content))


# ---- Karpathy's splits ----


def raw_split(kind):
    rows = []
    for number, split in enumerate(["train", "restval", "val", "test", "test"]):
        sentences = [{"raw": f"text {number}\n of it.", "tokens": []}, {"raw": "a second"}, {"raw": " "}]
        row = {"filename": f"{number}.jpg", "split": split, "sentences": sentences, "imgid": number}
        rows.append(row | ({"filepath": "val2014", "cocoid": 100 + number} if kind == "coco" else {}))
    return {"dataset": kind, "images": rows}


@pytest.mark.parametrize(
    ("kind", "folder", "images", "name"),
    [("coco", "coco2014", "val2014", "coco_karpathy"), ("flickr30k", "flickr30k", "flickr30k-images", "flickr30k")],
)
def test_a_raw_split_becomes_the_lists_of_the_three_tasks(kind, folder, images, name, tmp_path):
    root = tmp_path / "dataset" / folder
    file = write(tmp_path / "raw.json", "\ufeff" + json.dumps(raw_split(kind)))
    convert("karpathy", file, "--output", root)
    write_pictures(root / images, [f"{i}.jpg" for i in range(5)])
    test = retrieval.datasets.load_dataset(kind, str(tmp_path))
    assert test.ids == [f"{images}/3.jpg", f"{images}/4.jpg"]
    assert test.captions == [["text 3 of it.", "a second"], ["text 4 of it.", "a second"]]
    assert caption.datasets.load_dataset(kind, str(tmp_path)).ids == test.ids
    training = json.loads((root / f"{name}_train.json").read_text())
    assert [row["image"] for row in training] == [f"{images}/0.jpg"] * 2 + [f"{images}/1.jpg"] * 2
    assert training[0]["caption"] == "text 0 of it."
    assert training[0]["image_id"] == ("coco_100" if kind == "coco" else "flickr30k_0")
    assert len(json.loads((root / f"{name}_val.json").read_text())) == 1
    references = read_json(root / f"{name}_test_clipscore.json")
    assert match_captions({f"{images}/3.jpg": "x"}, root, references).references == [["text 3 of it.", "a second"]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"dataset": "flickr8k", "images": []}, "a split of 'flickr8k'; known are coco, flickr30k"),
        ({"dataset": "coco", "images": [{"filename": "x"}]}, "is no raw split of Karpathy's"),
        ({"dataset": "coco", "images": []}, "has no image of the splits train, val, test"),
        ([], "is no raw split of Karpathy's"),
    ],
)
def test_another_file_than_a_raw_split_is_told(content, told, tmp_path):
    with pytest.raises(UserError, match=told):
        convert("karpathy", write(tmp_path / "x.json", content))


# ---- COCO's results ----

LISTS = {
    "coco": {"images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}], "annotations": []},
    "karpathy": {"images": [{"cocoid": 42, "filepath": "val2014", "filename": "a.jpg", "sentences": []}]},
    "lavis, training": [{"image_id": "coco_42", "image": "val2014/a.jpg", "caption": "x"}] * 2,
    "lavis, test": [{"image": "val2014/COCO_val2014_000000000042.jpg", "caption": ["x"]}],
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("key", [42, "42"])
def test_results_become_candidates_by_any_list(kind, key, tmp_path, capsys):
    results = write(tmp_path / "results.json", [{"image_id": key, "caption": "a dog"}])
    convert("coco-results", results, "--list", write(tmp_path / "list.json", LISTS[kind]))
    (image,) = json.loads((tmp_path / "candidates.json").read_text())
    assert image.endswith(".jpg") and capsys.readouterr().out == f"{tmp_path}/candidates.json\n"


def test_results_whose_ids_are_file_names_need_no_list(tmp_path):
    results = write(tmp_path / "results.json", [{"image_id": "clean/0.png", "caption": "a dog"}])
    convert("coco-results", results, "--output", tmp_path / "new" / "c.json")
    assert json.loads((tmp_path / "new" / "c.json").read_text()) == {"clean/0.png": "a dog"}


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([{"image_id": 42, "caption": "x"}], "image_id 42 is no file name; give --list"),
        ({"a.jpg": "x"}, "holds no results of COCO's form"),
        ([], "holds no caption"),
        ([{"image_id": "a.jpg", "caption": "x"}, {"image_id": "a.jpg", "caption": "y"}], "entry 2: a.jpg has a second"),
    ],
)
def test_results_that_cannot_be_converted_are_told(results, told, tmp_path):
    with pytest.raises(UserError, match=told):
        convert("coco-results", write(tmp_path / "results.json", results))


def test_an_id_that_the_list_has_not_is_told(tmp_path):
    results = write(tmp_path / "results.json", [{"image_id": 7, "caption": "x"}])
    listed = write(tmp_path / "list.json", LISTS["coco"])
    with pytest.raises(UserError, match=r"image_id 7 is no file name; .*list\.json has no image of it"):
        convert("coco-results", results, "--list", listed)


# ---- ImageNet's validation images ----

NUMBERS = [number for number, seen in enumerate(names.real_labels()[:60], start=1) if seen]


def wnid_of(number, shift=0):
    return names.wnids()[(min(names.real_labels()[number - 1]) + shift) % 1000]


def flat_folder(place, suffix=""):
    paths = [f"ILSVRC2012_val_{n:08}{f'_{wnid_of(n)}' if suffix else ''}.JPEG" for n in NUMBERS]
    return write_pictures(place, paths)


def labels(kind, shift=0):
    if kind == "wnids":
        table = ["n01440764"] * 50_000
        for n in NUMBERS:
            table[n - 1] = wnid_of(n, shift)
        return "\n".join(table)
    lines = {
        "solution": lambda n, wnid: f"ILSVRC2012_val_{n:08},{wnid} 85 1 272 280 {wnid} 1 2 3 4",
        "valprep": lambda n, wnid: f"mv ILSVRC2012_val_{n:08}.JPEG {wnid}/",
        "indices": lambda n, wnid: f"ILSVRC2012_val_{n:08}.JPEG {names.wnids().index(wnid)}",
    }
    return "\n".join(lines[kind](n, wnid_of(n, shift)) for n in NUMBERS)


def sorted_right(place):
    found = {path.name[:23]: path for path in place.rglob("*.JPEG")}
    assert len(found) == len(NUMBERS)
    assert all(path.is_symlink() and path.exists() for path in found.values())
    assert all(found[f"ILSVRC2012_val_{n:08}"].parent.name == wnid_of(n) for n in NUMBERS)


@pytest.mark.parametrize("kind", ["wnids", "solution", "valprep", "indices"])
def test_flat_images_get_class_folders_by_links(kind, tmp_path, capsys):
    flat = flat_folder(tmp_path / "FLAT")
    convert("imagenet-val", flat, "--labels", write(tmp_path / "labels", labels(kind)), "--data", tmp_path)
    place = tmp_path / "dataset" / "tta_data" / "ImageNet" / "val"
    sorted_right(place)
    assert f"{len(NUMBERS)} images in class folders: {place}" in capsys.readouterr().out
    assert len(load_dataset("I", str(tmp_path)).samples) == len(NUMBERS)


def test_images_that_tell_their_class_need_no_labels(tmp_path):
    convert("imagenet-val", flat_folder(tmp_path / "FLAT", "named"), "--output", tmp_path / "sorted")
    sorted_right(tmp_path / "sorted")


def test_a_flat_folder_in_its_final_place_is_moved_aside(tmp_path):
    place = tmp_path / "dataset" / "tta_data" / "ImageNet" / "val"
    flat_folder(place)
    write(place.parent / "imagenet_2012_validation_synset_labels.txt", labels("wnids"))
    for _ in range(2):  # also what a stopped one began
        convert("imagenet-val", place, "--data", tmp_path)
        sorted_right(place)
    assert len(list((place.parent / "val-flat").glob("*.JPEG"))) == len(NUMBERS)


def test_hard_links_serve_where_there_are_no_others(tmp_path):
    flat = flat_folder(tmp_path / "FLAT", "named")
    convert("imagenet-val", flat, "--output", tmp_path / "sorted", "--hard-links")
    (one, *_) = (tmp_path / "sorted").rglob("*.JPEG")
    assert not one.is_symlink() and one.stat().st_nlink == 2


def test_labels_of_other_images_are_refused(tmp_path):
    flat = flat_folder(tmp_path / "FLAT")
    file = write(tmp_path / "labels", labels("valprep", shift=1))
    with pytest.raises(UserError, match="are not those of the images: people confirm "):
        convert("imagenet-val", flat, "--labels", file, "--output", tmp_path / "sorted")
    assert not (tmp_path / "sorted").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("490\n361\n171", "numbers alone, which the development kit counts in another order"),
        ("n01440764\n" * 10, "has 10 lines, a class each; there are 50,000 images"),
        ("hello\nworld", "tells no image's class"),
        ("ILSVRC2012_val_00000001.JPEG n01440764", "has no class of ILSVRC2012_val_0000000"),
    ],
)
def test_labels_that_cannot_be_read_are_told(content, told, tmp_path):
    flat = flat_folder(tmp_path / "FLAT")
    with pytest.raises(UserError, match=told):
        convert("imagenet-val", flat, "--labels", write(tmp_path / "labels", content), "--output", tmp_path / "sorted")


def test_missing_labels_are_told_with_what_gets_them(tmp_path):
    with pytest.raises(UserError, match=r"get a file of them: .*rlcf.data.* get imagenet-labels"):
        convert("imagenet-val", flat_folder(tmp_path / "FLAT"), "--output", tmp_path / "sorted")


def test_other_images_are_told(tmp_path):
    write_pictures(tmp_path / "FLAT", ["cat.jpg"])
    with pytest.raises(UserError, match="holds no image named ILSVRC2012_val_00000001"):
        convert("imagenet-val", tmp_path / "FLAT", "--output", tmp_path / "sorted")


# ---- files of any content ----

RAW = {"dataset": "coco", "images": [{"filename": "a.jpg", "split": "test", "cocoid": 1, "sentences": [{"raw": "a"}]}]}


def changed(**change):
    return {**RAW, "images": [{**RAW["images"][0], **change}]}


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("karpathy", changed(sentences=[{"raw": None}]), r"is no raw split .*wrong: the caption None"),
        ("karpathy", json.dumps(changed()).replace('"cocoid": 1', '"cocoid": 1e999'), "is no raw split"),
        ("karpathy", changed(cocoid="x"), "is no raw split"),
        ("karpathy", "[" * 5000, "cannot be read as JSON"),
        ("nocaps", {"images": [{"id": 0, "file_name": "a", "domain": "in-domain"}], "annotations": [7]}, "no original"),
        ("nocaps", {"images": [7], "annotations": []}, "no original"),
        ("coco-results", [{"image_id": "a.jpg", "caption": None}], "entry 1: the caption must be a text and is None"),
        ("coco-results", [{"image_id": "9" * 5000, "caption": "a"}], "is no file name"),
    ],
)
def test_a_file_of_any_content_is_told(kind, content, told, tmp_path):
    with pytest.raises(UserError, match=told):
        convert(kind, write(tmp_path / "x.json", content))


def test_half_a_character_is_written_so_that_it_is_read(tmp_path):
    convert("karpathy", write(tmp_path / "x.json", changed(sentences=[{"raw": "a \ud800"}])))
    assert json.loads((tmp_path / "coco_karpathy_test.json").read_text())[0]["caption"] == ["a \ud800"]


@pytest.mark.parametrize("name", ["x.json", "labels.txt"])
def test_a_pipe_is_told_and_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    write_pictures(tmp_path / "flat", ["ILSVRC2012_val_00000001.JPEG"])
    words = ["nocaps", tmp_path / name] if name == "x.json" else ["imagenet-val", tmp_path / "flat"]
    with pytest.raises(UserError, match=f"{name}"):
        convert(*words, *(["--labels", tmp_path / name, "--output", tmp_path / "out"] if name != "x.json" else []))
