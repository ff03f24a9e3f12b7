import json

import pytest

from rlcf.errors import UserError
from rlcf.run.data import (
    CaptionedImage,
    data_folder,
    find,
    find_karpathy_list,
    find_list,
    image_root,
    read_captions,
    require_images,
)
from tests.tools import write_pictures


@pytest.fixture
def listed(tmp_path):
    """Writes a caption list; returns its file."""

    def write(held, name="list.json"):
        file = tmp_path / name
        file.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
        return file

    return write


def told(function, *arguments, **settings):
    with pytest.raises(UserError) as error:
        function(*arguments, **settings)
    return str(error.value)


# ---- where datasets are ----


@pytest.mark.parametrize("data", ["", "/no/such"])
def test_a_data_folder_that_is_not_there_is_told(data):
    assert told(data_folder, data) == f"no data folder '{data}'; give --data the folder that holds the datasets"


def test_a_file_is_no_data_folder(listed):
    assert told(data_folder, str(listed([]))).startswith("no data folder '")


def test_the_first_place_that_is_there_is_found(tmp_path, listed):
    assert data_folder(str(tmp_path)) == tmp_path
    second, third = listed([], "b.json"), listed([], "c.json")
    assert find("coco", [tmp_path / "a.json", second, third]) == second
    assert find("coco", [second, tmp_path], lambda place: place.is_dir()) == tmp_path


def test_a_dataset_that_is_nowhere_is_told_with_each_place_once(tmp_path):
    places = [tmp_path / name for name in ("a", "b", "a")]
    assert told(find, "mine", places) == f"dataset mine was not found; tried {tmp_path}/a, {tmp_path}/b"


@pytest.mark.parametrize("name", ["json:list", "json:list.json"])
def test_a_list_is_found_with_and_without_its_ending(tmp_path, listed, name):
    file = listed([])
    assert find_list(name, tmp_path) == file


@pytest.mark.parametrize("name", ["json", "json:"])
def test_a_list_dataset_without_its_file_is_told(tmp_path, name):
    assert told(find_list, name, tmp_path) == "dataset json needs its list: json:FILE, a file below --data"


def test_a_list_that_is_not_there_is_told(tmp_path):
    expected = f"dataset json:coco was not found; tried {tmp_path}/coco, {tmp_path}/coco.json"
    assert told(find_list, "json:coco", tmp_path) == expected


def test_images_start_from_the_first_folder_that_holds_one(tmp_path):
    write_pictures(tmp_path, ["first/", "second/a.jpg", "third/a.jpg"])
    roots = [tmp_path / name for name in ("first", "second", "third")]
    assert image_root("a.jpg", roots) == roots[1] and image_root("b.jpg", roots) == roots[0]


def test_a_list_of_images_that_are_not_there_is_told(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    require_images(tmp_path / "l.json", [tmp_path / "a.jpg"])
    message = told(require_images, tmp_path / "l.json", [tmp_path / "a.jpg", tmp_path / "b.jpg"])
    assert message == f"{tmp_path}/l.json lists an image that is not there: {tmp_path}/b.jpg"


# ---- what a list holds ----


def test_a_list_has_an_entry_an_image_or_an_entry_a_caption(listed):
    by_image = [{"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b/c.jpg", "caption": "three"}]
    by_caption = [
        {"image": "a.jpg", "caption": "one"},
        {"image": "b/./c.jpg", "caption": "three"},
        {"image": "a.jpg", "caption": "two"},
    ]
    expected = [CaptionedImage("a.jpg", ["one", "two"]), CaptionedImage("b/c.jpg", ["three"])]
    assert read_captions(listed(by_image)) == read_captions(listed(by_caption)) == expected


def test_a_list_with_an_entry_an_image_refuses_a_second_one(listed):
    file = listed([{"image": name, "caption": "one"} for name in ("a.jpg", "b.jpg", "a.jpg", "a.jpg")])
    message = told(read_captions, file, unique=True)
    assert message == f"{file} lists a.jpg 3 times; give each image one entry with all texts"
    assert [len(entry.captions) for entry in read_captions(file)] == [3, 1]


NOCAPS = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "domain": "in-domain"},
        {"id": 0, "file_name": "b.jpg"},
    ],
    "annotations": [
        {"image_id": 0, "caption": "three"},
        {"image_id": 1, "caption": "one"},
        {"image_id": 1, "caption": "two"},
    ],
}


def test_nocaps_form_is_read_in_the_order_of_its_images(listed):
    expected = [CaptionedImage("a.jpg", ["one", "two"], "in-domain"), CaptionedImage("b.jpg", ["three"])]
    assert read_captions(listed(NOCAPS)) == expected


@pytest.mark.parametrize("annotations", [{}, {"annotations": None}, {"annotations": []}])
def test_a_test_set_may_keep_its_captions_back(listed, annotations):
    entries = read_captions(listed({"images": NOCAPS["images"]} | annotations))
    assert [entry.captions for entry in entries] == [[], []]


def test_a_list_that_is_not_there_or_no_json_is_told(listed, tmp_path):
    assert told(read_captions, tmp_path / "no.json") == f"no caption list {tmp_path}/no.json"
    file = listed("{")
    assert told(read_captions, file).startswith(f"{file} is no JSON file (")


@pytest.mark.parametrize("held", [{}, "words", 3, {"images": 3}])
def test_json_of_another_form_is_told_with_the_known_ones(listed, held):
    file = listed(json.dumps(held))
    message = told(read_captions, file)
    assert message.startswith(f'{file} is no caption list; it must hold [{{"image": path, "caption": text or texts}}')


@pytest.mark.parametrize("held", [[], {"images": []}])
def test_an_empty_list_is_told(listed, held):
    file = listed(held)
    assert told(read_captions, file).startswith(f"{file} lists no image; it must hold [")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.jpg", "names no image; it must be"),
        ({"caption": "x"}, "names no image; it must be"),
        ({"image": "", "caption": "x"}, "names no image; it must be"),
        ({"image": "b.jpg"}, '(b.jpg) has no captions; "caption" must hold one text or more'),
        ({"image": "b.jpg", "caption": []}, '(b.jpg) has no captions; "caption" must hold one text or more'),
        ({"image": "b.jpg", "caption": ["one", " "]}, "(b.jpg) has an empty caption; give it words or take it out"),
        ({"image": "b.jpg", "caption": [3]}, "(b.jpg) has an empty caption; give it words or take it out"),
    ],
)
def test_a_broken_entry_is_told_with_its_number(listed, entry, message):
    file = listed([{"image": "a.jpg", "caption": "fine"}, entry])
    told_of = told(read_captions, file)
    assert told_of.startswith(f"{file}, entry 2") and message in told_of


@pytest.mark.parametrize(
    "broken",
    [
        {"images": [{"id": 1}]},
        {"images": ["a.jpg"]},
        {"images": NOCAPS["images"], "annotations": [{"image_id": 7, "caption": "x"}]},
        {"images": NOCAPS["images"], "annotations": [{"caption": "x"}]},
    ],
)
def test_a_broken_list_of_nocaps_form_is_told(listed, broken):
    file = listed(broken)
    assert told(read_captions, file).startswith(f"{file} is no caption list of NoCaps' form; it must hold [")


def test_an_empty_caption_of_nocaps_form_is_told_with_its_image(listed):
    file = listed({"images": NOCAPS["images"], "annotations": [{"image_id": 0, "caption": ""}]})
    assert told(read_captions, file) == f"{file} (b.jpg) has an empty caption; give it words or take it out"


def test_a_lists_own_name_wins_over_a_plain_one(tmp_path):
    """flickr30k/test.json is a name that anything may have; annotations/flickr30k_test.json is the set's own."""
    own = tmp_path / "flickr30k" / "annotations" / "flickr30k_test.json"
    for file in (own, tmp_path / "flickr30k" / "test.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[]")
    assert find_karpathy_list("flickr30k", tmp_path) == own
