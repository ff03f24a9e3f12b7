import json

import pytest

from retrieval.datasets import clean_text, load_dataset
from rlcf.errors import UserError

PAIR = [{"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b/c.jpg", "caption": ["three"]}]


def test_texts_are_numbered_through_and_know_their_image(write_list):
    dataset = load_dataset("json:list", str(write_list(PAIR)))
    assert dataset.texts == ["one", "two", "three"] and dataset.image_of == [0, 0, 1]
    assert [list(texts) for texts in dataset.texts_of] == [[0, 1], [2]]
    assert [dataset.targets("i2t", image) for image in (0, 1)] == [[0, 1], [2]]
    assert [dataset.targets("t2i", text) for text in (0, 1, 2)] == [[0], [0], [1]]
    assert (dataset.gallery("i2t"), dataset.gallery("t2i")) == (["one", "two", "three"], ["a.jpg", "b/c.jpg"])
    assert dataset.query_ids("i2t") == ["a.jpg", "b/c.jpg"]
    assert dataset.query_ids("t2i") == ["a.jpg#0", "a.jpg#1", "b/c.jpg#0"]


def test_a_caption_may_stand_without_a_list(write_list):
    root = write_list([{"image": "a.jpg", "caption": "one"}])
    assert load_dataset("json:list.json", str(root)).captions == [["one"]]


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("dataset/coco2014", "coco_karpathy_test.json"),
        ("coco2014", "annotations/coco_karpathy_test.json"),
        ("dataset/flickr30k", "annotations/flickr30k_test.json"),
        ("flickr30k", "annotations/test.json"),
    ],
)
@pytest.mark.parametrize("images", ["", "images/"])
def test_the_known_lists_are_found_with_their_images(write_list, folder, file, images):
    name = "coco" if "coco" in folder else "flickr30k"
    root = write_list([{"image": f"{folder}/{images}x/1.jpg"}], file="unused.json")
    (root / folder / file).parent.mkdir(parents=True, exist_ok=True)
    (root / folder / file).write_text(json.dumps([{"image": "x/1.jpg", "caption": ["one"]}]))
    dataset = load_dataset(name, str(root))
    assert dataset.files == [root / folder / images / "x/1.jpg"] and dataset.ids == ["x/1.jpg"]


def test_texts_are_left_as_they_are_or_cleaned_as_published(write_list):
    text = 'A  Man (left) holds: "two" dogs... ~ #1!'
    root = str(write_list([{"image": "a.jpg", "caption": [text]}]))
    assert load_dataset("json:list", root).texts == [text]
    assert load_dataset("json:list", root, clean=True).texts == ["a man left holds two dogs 1"]
    assert clean_text("Word " * 60) == " ".join(["word"] * 50)
    assert clean_text("it's a t-shirt, really") == "it's a t-shirt, really"


BAD = {
    "no list": ({"image": 3}, r"list.json is no caption list; it must hold"),
    "empty": ([], r"list.json lists no image; it must hold"),
    "no JSON": ("[{", r"list.json cannot be read as JSON \("),
    "no entry": (["a.jpg"], r"list.json, entry 1 names no image; it must be"),
    "no image": ([PAIR[0], {"caption": ["x"]}], r"list.json, entry 2 names no image"),
    "no captions": ([{"image": "a.jpg"}], r'list.json, entry 1 \(a.jpg\) has no captions; "caption" must hold'),
    "empty captions": ([{"image": "a.jpg", "caption": []}], r"entry 1 \(a.jpg\) has no captions"),
    "blank caption": ([{"image": "a.jpg", "caption": ["x", " "]}], r"entry 1 \(a.jpg\) is empty"),
    "numbers": ([{"image": "a.jpg", "caption": [1]}], r"entry 1 \(a.jpg\) must be a text and is 1"),
    "captions kept back": ({"images": [{"id": 1, "file_name": "a.jpg"}]}, r"list.json has no captions of a.jpg; retr"),
    "twice": ([*PAIR, PAIR[0]], r"lists a.jpg 2 times; give each image one entry with all texts"),
    "twice, spelt otherwise": ([PAIR[0], {"image": "./a.jpg", "caption": ["x"]}], r"lists a.jpg 2 times"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_list_is_told_with_the_file_and_the_entry(write_list, case):
    entries, message = BAD[case]
    root = write_list(entries, pictures=False)
    with pytest.raises(UserError, match=message) as error:
        load_dataset("json:list", str(root))
    assert str(root / "list.json") in str(error.value)


def test_a_missing_image_is_named(write_list):
    root = write_list(PAIR)
    (root / "b/c.jpg").unlink()
    with pytest.raises(UserError, match=r"list.json lists an image that is not there: .*data/b/c.jpg$"):
        load_dataset("json:list", str(root))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json", r"dataset json needs its list: json:FILE"),
        ("json:none", r"json:none was not found; tried .*data/none, .*data/none.json"),
        ("coco", r"coco was not found; tried .*data/coco2014/coco_karpathy_test.json, .*dataset/coco2014"),
        ("flickr", r"unknown dataset 'flickr'; there are coco, flickr30k, json:FILE, hf:NAME"),
    ],
)
def test_what_is_not_found_is_named_with_where_it_was_looked_for(write_list, name, message):
    with pytest.raises(UserError, match=message):
        load_dataset(name, str(write_list(PAIR)))


@pytest.mark.parametrize("data", ["", "nowhere"])
def test_a_missing_data_folder_is_named(data):
    with pytest.raises(UserError, match=rf"no data folder '{data}'; give --data"):
        load_dataset("coco", data)
