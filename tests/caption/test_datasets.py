import json

import pytest
from PIL import Image

from caption.datasets import DOMAINS, NOCAPS, PER_DOMAIN, load_dataset
from rlcf.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Writes a list and the pictures it names, which lie below `images`; returns the data folder."""

    def make(file, held, images):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(json.dumps(held))
        entries = held["images"] if isinstance(held, dict) else held
        for entry in entries:
            picture = tmp_path / images / entry.get("image", entry.get("file_name"))
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4)).save(picture)
        return str(tmp_path)

    return make


def listed(*images):
    return [{"image": image, "caption": [f"first of {image}", f"second of {image}"]} for image in images]


def original_nocaps():
    images = [{"id": i, "file_name": f"{i}.jpg", "domain": DOMAINS[i % 3]} for i in range(7)]
    annotations = [{"id": 10 * i + j, "image_id": i, "caption": f"text {j} of {i}"} for j in range(2) for i in range(7)]
    return {"images": images, "annotations": annotations}


@pytest.mark.parametrize(
    ("name", "file", "images"),
    [
        ("coco", "dataset/coco2014/coco_karpathy_test.json", "dataset/coco2014"),
        ("coco", "coco/annotations/coco_karpathy_test.json", "coco/images"),
        ("flickr30k", "dataset/flickr30k/annotations/flickr30k_test.json", "dataset/flickr30k"),
        ("json:list", "list.json", "."),
        ("json:lists/some.json", "lists/some.json", "lists"),
    ],
)
def test_a_list_is_found_with_its_images(name, file, images, write, tmp_path):
    data = write(file, listed("val2014/b.jpg", "val2014/a.jpg"), images)
    dataset = load_dataset(name, data)
    assert dataset.ids == ["val2014/b.jpg", "val2014/a.jpg"]
    assert dataset.files == [tmp_path / images / path for path in dataset.ids]
    assert dataset.samples[0].captions == ["first of val2014/b.jpg", "second of val2014/b.jpg"]


def test_an_image_with_an_entry_a_caption_is_one_sample(write):
    entries = [
        {"image": i, "image_id": i, "caption": c} for i, c in (("a.jpg", "one"), ("b.jpg", "two"), ("a.jpg", "three"))
    ]
    dataset = load_dataset("json:train", write("train.json", entries, "."))
    assert [(s.image, s.captions) for s in dataset.samples] == [("a.jpg", ["one", "three"]), ("b.jpg", ["two"])]


def test_nocaps_original_json_gives_three_domains_in_one_and_each_alone(write):
    data = write(f"dataset/nocaps/{NOCAPS}", original_nocaps(), "dataset/nocaps/val")
    whole = load_dataset("nocaps", data)
    assert [s.domain for s in whole.samples[:3]] == list(DOMAINS) and len(whole.samples) == 7
    assert whole.samples[4].captions == ["text 0 of 4", "text 1 of 4"]
    for domain in DOMAINS:
        alone = load_dataset(f"nocaps-{domain}", data)
        assert alone.samples == [s for s in whole.samples if s.domain == domain]


def test_nocaps_files_of_one_domain_each_give_the_same(write):
    for number, domain in enumerate(DOMAINS):
        entries = [{**entry, "image_id": 1} for entry in listed(f"{number}.jpg", f"{number + 3}.jpg")]
        data = write(f"nocaps/{PER_DOMAIN[domain]}", entries, "nocaps/val")
    assert [(s.image, s.domain) for s in load_dataset("nocaps", data).samples] == [
        (f"{n + k}.jpg", domain) for n, domain in enumerate(DOMAINS) for k in (0, 3)
    ]
    assert load_dataset("nocaps-out-domain", data).ids == ["2.jpg", "5.jpg"]


def test_a_folder_needs_no_references(tmp_path):
    for name in ("b.png", "sub/a.JPG"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    dataset = load_dataset("folder:photos", str(tmp_path))
    assert dataset.ids == ["b.png", "sub/a.JPG"]
    assert all(not sample.captions for sample in dataset.samples)


def test_a_missing_image_is_named(write, tmp_path):
    data = write("list.json", listed("a.jpg", "b.jpg"), ".")
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"list.json lists an image that is not there: .*b.jpg"):
        load_dataset("json:list", data)


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ([{"image": "a.jpg", "caption": ["one", " "]}], r"a caption of .*entry 1 \(a.jpg\) is empty"),
        ([{"image": "a.jpg", "caption": []}], r"entry 1 \(a.jpg\) has no captions"),
        ([{"caption": ["one"]}], "entry 1 names no image"),
        ([], "lists no image"),
        ({"a.jpg": 3}, "is no caption list"),
        ({"images": [{"id": 1}]}, "image 1 names no file"),
    ],
)
def test_what_is_wrong_with_a_list_is_told(held, told, tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(held))
    with pytest.raises(UserError, match=told):
        load_dataset("json:list", str(tmp_path))


def test_what_is_not_there_is_told(tmp_path):
    (tmp_path / "broken.json").write_text("[{")
    for name, told in {
        "json:broken": "broken.json cannot be read as JSON",
        "json:nowhere": "tried .*nowhere, .*nowhere.json",
        "coco": r"dataset coco was not found; tried .*coco2014/coco_karpathy_test.json",
        "nocaps": "dataset nocaps was not found",
        "cocoa": "unknown dataset 'cocoa'; there are coco, flickr30k, nocaps",
        "folder:nowhere": "no folder",
        "folder": "holds no image",
    }.items():
        with pytest.raises(UserError, match=told):
            load_dataset(name, str(tmp_path))
    with pytest.raises(UserError, match="no data folder 'nowhere'"):
        load_dataset("coco", "nowhere")
