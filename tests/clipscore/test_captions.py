import json
import os
import re

import pytest

from clipscore.captions import match_captions, read_candidates, read_references
from rlcf.errors import UserError

from .conftest import CANDIDATES, REFERENCES


@pytest.fixture
def folder(tmp_path):
    """Empty files in an image folder."""

    def fill(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return fill


def test_candidates_get_their_images_and_references_in_the_candidates_order(images):
    captions = match_captions(CANDIDATES, images, dict(reversed(REFERENCES.items())))
    assert captions.names == list(CANDIDATES)
    assert captions.images == [images / name for name in CANDIDATES]
    assert captions.references == [REFERENCES[name] for name in CANDIDATES]


def test_without_references_there_are_none(images):
    assert match_captions(CANDIDATES, images).references is None


@pytest.mark.parametrize(("candidate", "reference"), [("a", "a.jpg"), ("a.jpg", "a"), ("a", "a")])
def test_the_suffix_may_be_left_out(folder, candidate, reference):
    captions = match_captions({candidate: "a dog"}, folder("a.jpg", "a.txt", "ab.jpg"), {reference: ["dog"]})
    assert captions.images[0].name == "a.jpg"
    assert captions.references == [["dog"]]


def test_a_full_stop_inside_a_name_is_no_suffix(folder):
    captions = match_captions({"a.v1": "a dog"}, folder("a.v1.png", "a.png"), {"a.v1": ["dog"]})
    assert captions.images[0].name == "a.v1.png"


def test_a_name_may_be_a_path_below_the_image_folder(folder):
    captions = match_captions(
        {"val2014/a.jpg": "a dog", "val2014/b": "a cat"}, folder("val2014/a.jpg", "val2014/b.png")
    )
    assert [file.name for file in captions.images] == ["a.jpg", "b.png"]


def test_a_name_that_fits_two_images_is_refused(folder):
    with pytest.raises(UserError, match=r"'a' fits a\.jpg and a\.png of .*; give the name with its suffix"):
        match_captions({"a": "a dog"}, folder("a.png", "a.jpg"))


def test_a_name_that_fits_two_entries_of_the_references_is_refused(folder):
    with pytest.raises(UserError, match="of the references"):
        match_captions({"a": "a dog"}, folder("a.png"), {"a.png": ["dog"], "a.jpg": ["dog"]})


def test_another_suffix_is_another_image(folder):
    with pytest.raises(UserError, match=r"no image .*a\.jpg"):
        match_captions({"a.jpg": "a dog"}, folder("a.png"))
    with pytest.raises(UserError, match=r"no references for candidate 'a\.jpg'"):
        match_captions({"a.jpg": "a dog"}, folder("a.jpg"), {"a.png": ["dog"]})


def test_line_breaks_and_double_spaces_become_single_spaces(folder):
    captions = match_captions({"a.jpg": " a\ndog\u2028 \ud83d "}, folder("a.jpg"), {"a.jpg": "a  cat"})
    assert captions.candidates == ["a dog ?"]
    assert captions.references == [["a cat"]]


@pytest.mark.parametrize(
    ("candidates", "references", "told"),
    [
        ({}, None, "there is no candidate"),
        ({"red.png": 7}, None, "the candidate of 'red.png' must be a text and is 7"),
        ({"red.png": ["a dog"]}, None, "the candidate of 'red.png' must be a text"),
        ({"red.png": None}, None, "the candidate of 'red.png' must be a text and is None"),
        ({"red.png": "a dog"}, {}, "no references for candidate 'red.png'"),
        ({"red.png": "a dog"}, {"red.png": []}, "no references for candidate 'red.png'"),
        ({"red.png": "a dog"}, {"red.png": {"a": "dog"}}, "the references of 'red.png' are no list"),
        ({"red.png": "a dog"}, {"red.png": ["a dog", None]}, "a reference of 'red.png' must be a text"),
        ({"red.png": "a dog"}, {"red.png": ["a dog", ""]}, "a reference of 'red.png' is empty"),
        ({"pink.png": "a dog"}, None, "no image"),
        ({"far/pink": "a dog"}, None, "no image"),
        ({"": "a dog"}, None, "no image"),
        ({".": "a dog"}, None, "no image"),
        ({"x" * 5000 + "/a": "a dog"}, None, "no image"),
        ({"a\0": "a dog"}, None, "no image"),
    ],
)
def test_what_is_wrong_is_named(images, candidates, references, told):
    with pytest.raises(UserError, match=re.escape(told)):
        match_captions(candidates, images, references)


def test_a_missing_image_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no image folder .*nowhere"):
        match_captions({"a.jpg": "a dog"}, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("3", "must hold {"),
        ('["a dog"]', "entry 1 is no result; it must be"),
        ('[{"image_id": 3}]', "entry 1 is no result"),
        ('[{"image_id": null, "caption": "x"}]', "the image_id of .* must be a whole number or a text"),
        ('[{"image_id": 1e999, "caption": "x"}]', "the image_id of .* must be a whole number or a text"),
        ('[{"image": "a", "caption": "x"}, {"image": "a", "caption": "y"}]', "entry 2 is a second caption of a"),
        ('{"a": "dog", "b": "cat", "a": "bird"}', "names 'a' twice"),
    ],
)
def test_other_content_than_candidates_is_refused(written, content, told):
    with pytest.raises(UserError, match=told):
        read_candidates(written(content))


def test_cocos_results_get_their_images_from_a_list_with_ids(written):
    results = [{"image_id": 7, "caption": "a dog"}, {"image_id": "8", "caption": ""}, {"image_id": "b", "caption": "x"}]
    images = [{"id": "0007", "file_name": "a.jpg"}, {"id": 8, "file_name": "c.jpg"}]
    coco = {"images": images, "annotations": [{"image_id": 7, "caption": "a dog runs"}]}
    references = read_references(written(coco, "coco.json"))
    found = read_candidates(written(results), references)
    assert found == {"a.jpg": "a dog", "c.jpg": "", "b": "x"}


@pytest.mark.parametrize("references", [None, {"a.jpg": ["a dog"]}])
def test_ids_without_a_list_that_maps_them_are_told(written, references):
    read = None if references is None else read_references(written(references, "refs.json"))
    with pytest.raises(UserError, match=r"entry 1: 7 is an id, and no list tells its image; give --references a list"):
        read_candidates(written([{"image_id": 7, "caption": "a dog"}]), read)


def test_a_candidate_without_words_stays_and_is_empty(folder):
    captions = match_captions({"a.jpg": " \n", "b.jpg": "a dog"}, folder("a.jpg", "b.jpg"))
    assert captions.candidates == ["", "a dog"] and captions.empty == [0]


def test_a_name_may_be_written_in_another_way(folder):
    references = {"val/a.jpg": ["one"], "./b.png": ["two"], r"sub\c.png": ["three"], "e\u0301.png": ["four"]}
    names = ["./val/a.jpg", "b.png", "sub/c.png", r"val\a.jpg", r".\sub\c", "\u00e9.png"]
    images = folder("val/a.jpg", "b.png", "sub/c.png", "e\u0301.png")
    captions = match_captions(dict.fromkeys(names, "a dog"), images, references)
    assert [file.name for file in captions.images] == ["a.jpg", "b.png", "c.png", "a.jpg", "c.png", "e\u0301.png"]
    assert captions.references == [["one"], ["two"], ["three"], ["one"], ["three"], ["four"]]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json cannot be read as JSON \(No such file"):
        read_candidates(tmp_path / "gone.json")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match=r"a\.json cannot be read as JSON"):
        read_candidates(tmp_path / "a.json")


def test_a_file_that_is_a_pipe_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "candidates.json")
    with pytest.raises(UserError, match=r"candidates.json cannot be read as JSON \(it is a pipe or a device"):
        read_candidates(tmp_path / "candidates.json")


COCO = {
    "images": [{"id": 7, "file_name": "COCO_7.jpg"}, {"id": 8, "file_name": "8.jpg"}],
    "annotations": [{"image_id": 7, "caption": "a dog"}, {"image_id": 8, "caption": "a cat"}],
}


@pytest.mark.parametrize(
    "held",
    [
        {"7": "x", "8": "y"},
        {"000000000007": "x", "8.jpg": "y"},
        {"annotations": [{"image_id": 7, "caption": "x"}, {"image_id": 8, "caption": "y"}]},
        '{"image_id": 7, "caption": "x"}\n{"image_id": "8", "caption": "y"}\n',
    ],
)
def test_ids_of_any_form_are_those_of_the_references(tmp_path, held):
    (tmp_path / "refs.json").write_text(json.dumps(COCO))
    (tmp_path / "c.json").write_text(held if isinstance(held, str) else json.dumps(held))
    references = read_references(tmp_path / "refs.json")
    matched = match_captions(read_candidates(tmp_path / "c.json", references), None, references)
    assert matched.candidates == ["x", "y"] and matched.references == [["a dog"], ["a cat"]]


def test_two_names_of_one_image_and_a_line_alone(tmp_path):
    (tmp_path / "refs.json").write_text(json.dumps(COCO))
    references = read_references(tmp_path / "refs.json")
    (tmp_path / "c.json").write_text('{"7": "x", "07": "y"}')
    with pytest.raises(UserError, match=r"c.json: '07' is a second caption of COCO_7.jpg; keep one of them"):
        read_candidates(tmp_path / "c.json", references)
    (tmp_path / "c.json").write_text('{"image_id": 7, "caption": "x"}\n')
    assert read_candidates(tmp_path / "c.json", references) == {"COCO_7.jpg": "x"}
