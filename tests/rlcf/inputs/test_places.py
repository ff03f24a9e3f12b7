"""Where datasets and the images of a list are found."""

import pytest

from rlcf.data.command import own_command
from rlcf.errors import UserError
from rlcf.inputs.places import (
    as_it_lies,
    data_folder,
    expanded,
    find,
    find_folder,
    find_images,
    find_karpathy_list,
    find_list,
)
from tests.tools import write_pictures


@pytest.fixture
def listed(tmp_path):
    """Writes a file; returns it."""

    def write(text, name="list.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def told(function, *arguments):
    with pytest.raises(UserError) as error:
        function(*arguments)
    return str(error.value)


@pytest.mark.parametrize("data", ["", "/no/such"])
def test_a_data_folder_that_is_not_there_is_told(data):
    assert told(data_folder, data) == f"no data folder '{data}'; give --data the folder that holds the datasets"


def test_a_file_is_no_data_folder(listed):
    assert told(data_folder, str(listed("[]"))).startswith("no data folder '")


def test_the_first_place_that_is_there_is_found(tmp_path, listed):
    assert data_folder(str(tmp_path)) == tmp_path
    second, third = listed("[]", "b.json"), listed("[]", "c.json")
    assert find("coco", [tmp_path / "a.json", second, third]) == second
    assert find("coco", [second, tmp_path], lambda place: place.is_dir()) == tmp_path


def test_a_dataset_that_is_nowhere_is_told_with_each_place_once(tmp_path):
    places = [tmp_path / name for name in ("a", "b", "a")]
    assert told(find, "coco", places) == (
        f"dataset coco was not found; tried {tmp_path}/a, {tmp_path}/b; '{own_command()} get coco' with this --data "
        "gets it or tells how, with check for get it tells what is wrong"
    )


@pytest.mark.parametrize("name", ["json:list", "json:list.json"])
def test_a_list_is_found_with_and_without_its_ending(tmp_path, listed, name):
    file = listed("[]")
    assert find_list(name, tmp_path) == file


@pytest.mark.parametrize("name", ["json", "json:"])
def test_a_list_dataset_without_its_file_is_told(tmp_path, name):
    assert told(find_list, name, tmp_path) == "dataset json needs its list: json:FILE, a file below --data"


def test_a_list_that_is_not_there_is_told(tmp_path):
    expected = f"dataset json:coco was not found; tried {tmp_path}/coco, {tmp_path}/coco.json"
    assert told(find_list, "json:coco", tmp_path) == expected


def test_a_list_and_a_folder_may_be_in_the_home_folder(tmp_path, listed, monkeypatch):
    file = listed("[]")
    (tmp_path / "pictures").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_list("json:~/list", tmp_path / "elsewhere") == file
    assert find_folder("folder:~/pictures", tmp_path / "elsewhere") == tmp_path / "pictures"


def test_only_a_tilde_at_the_start_of_a_home_that_is_known_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/a") == f"{tmp_path}/a" and expanded("~") == str(tmp_path)
    for literal in ("a/~/b", "a~", "", "${HOME}/a", "~nobody-of-this-name/a"):
        assert expanded(literal) == literal


def test_images_start_from_the_first_folder_that_holds_one(tmp_path):
    write_pictures(tmp_path, ["first/", "second/a.jpg", "third/a.jpg"])
    roots = [tmp_path / name for name in ("first", "second", "third")]
    assert find_images(tmp_path / "l.json", ["a.jpg"], roots) == (roots[1], ["a.jpg"])


def test_a_list_of_images_that_are_not_there_is_told(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    message = told(find_images, tmp_path / "l.json", ["a.jpg", "b.jpg"], [tmp_path])
    assert message == f"{tmp_path}/l.json lists an image that is not there: {tmp_path}/b.jpg"
    assert f"not there: {tmp_path}/b.jpg" in told(find_images, tmp_path / "l.json", ["b.jpg"], [tmp_path, tmp_path])


@pytest.mark.parametrize("name", ["\ud83d.png", "a\0.png", "x" * 5000])
def test_a_name_that_no_file_can_have_is_of_an_image_that_is_not_there(tmp_path, name):
    assert "lists an image that is not there" in told(find_images, tmp_path / "l.json", [name], [tmp_path])


def test_backslashes_are_slashes_unless_a_file_has_them_in_its_name(tmp_path):
    write_pictures(tmp_path, ["sub/a.png", r"sub\b.png", "sub/b.png"])
    assert as_it_lies(tmp_path, r".\sub\a.png") == "sub/a.png"
    assert as_it_lies(tmp_path, r"sub\b.png") == r"sub\b.png"
    assert as_it_lies(tmp_path, r"sub\c.png") == r"sub\c.png"


def test_an_accented_letter_may_be_one_character_or_two(tmp_path):
    write_pictures(tmp_path, ["cafe\u0301.png", "\u00fc.png"])
    assert as_it_lies(tmp_path, "caf\u00e9.png") == "cafe\u0301.png"
    assert as_it_lies(tmp_path, "u\u0308.png") == "\u00fc.png"


def test_a_lists_own_name_wins_over_a_plain_one(tmp_path):
    """flickr30k/test.json is a name that anything may have; annotations/flickr30k_test.json is the set's own."""
    own = tmp_path / "flickr30k" / "annotations" / "flickr30k_test.json"
    for file in (own, tmp_path / "flickr30k" / "test.json"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[]")
    assert find_karpathy_list("flickr30k", tmp_path) == own
