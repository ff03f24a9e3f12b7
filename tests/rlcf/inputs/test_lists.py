"""Lists of captioned images in every form, and what is wrong with them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcf.errors import UserError
from rlcf.inputs.json_files import as_id, read_json
from rlcf.inputs.lists import TRAINING, CaptionedImage, captions_in, read_captions

CASES = Path(__file__).resolve().parents[2] / "cases" / "lists"


@pytest.fixture
def listed(tmp_path):
    """Writes a caption list; returns its file."""

    def write(held):
        file = tmp_path / "list.json"
        if isinstance(held, bytes):
            file.write_bytes(held)
        else:
            file.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
        return file

    return write


def told(*arguments, **settings):
    with pytest.raises(UserError) as error:
        read_captions(*arguments, **settings)
    return str(error.value)


# ---- forms ----


@pytest.mark.parametrize("form", ["flat", "coco", "coco_str", "karpathy", "bom", "references"])
def test_every_form_gives_the_samples_of_the_plain_one(form):
    plain, found = read_captions(CASES / "plain.json"), read_captions(CASES / f"{form}.json")
    count = 3 if form == "karpathy" else 6  # the other three are in its split "train"
    assert found == plain[:count] and len(plain) == 6


@pytest.mark.parametrize("image", ["image", "file_name", "filename", "image_path", "img", "path", "filepath"])
@pytest.mark.parametrize("caption", ["caption", "captions", "text", "sentences", "references", "raw"])
def test_keys_are_those_that_people_write(listed, image, caption):
    expected = [CaptionedImage("a.jpg", ["one", "two"])]
    assert read_captions(listed([{image: "a.jpg", caption: ["one", "two"]}])) == expected
    assert read_captions(listed([{image: "a.jpg", caption: [{"raw": "one"}, {"raw": "two"}]}])) == expected
    assert read_captions(listed({image: "a.jpg", caption: ["one", "two"]})) == expected  # JSON Lines of one line
    assert (
        read_captions(listed({"annotations": [{image: "a.jpg", caption: text} for text in ("one", "two")]})) == expected
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results_20130124.token", "a.jpg#0\tA dog, there .\na.jpg#1\tTwo\nb.jpg#0\tx\n"),
        ("results.csv", "image_name| comment_number| comment\na.jpg| 0| A dog, there .\na.jpg| 1| Two\nb.jpg| 0| x\n"),
        ("captions.txt", 'image,caption\r\na.jpg,"A dog, there ."\r\na.jpg,Two\r\nb.jpg,x\r\n'),
        ("captions.tsv", "file_name\tcaption\na.jpg\tA dog, there .\na.jpg\tTwo\nb.jpg\tx\n"),
    ],
)
def test_a_list_may_be_a_table(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_captions(tmp_path / name)
    assert found == [CaptionedImage("a.jpg", ["A dog, there .", "Two"]), CaptionedImage("b.jpg", ["x"])]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.jpg,A dog\n", "its first line must name the columns, image and caption"),
        ("", "its first line must name the columns"),
        ("image|number|caption\na.jpg|4 A dog\n", "row 2 has 2 columns of 3; mend it"),
        ('image,caption\na.jpg,"A dog\nb.jpg,two\n', "mend its quotes"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, text, said):
    (tmp_path / "t.csv").write_text(text)
    assert said in told(tmp_path / "t.csv")


def test_a_list_has_an_entry_an_image_or_an_entry_a_caption(listed):
    by_image = [{"image": "a.jpg", "caption": ["one", "two"]}, {"image": "b/c.jpg", "caption": "three"}]
    by_caption = [
        {"image": "a.jpg", "caption": "one"},
        {"image": "b/./c.jpg", "caption": "three"},
        {"image": "a.jpg", "caption": "two"},
    ]
    by_name = {"a.jpg": ["one", "two"], "./b/c.jpg": "three"}
    expected = [CaptionedImage("a.jpg", ["one", "two"]), CaptionedImage("b/c.jpg", ["three"])]
    for form in (by_image, by_caption, by_name):
        assert read_captions(listed(form)) == expected


def test_an_image_with_two_lists_of_captions_is_refused(listed):
    file = listed([{"image": name, "caption": ["one"]} for name in ("a.jpg", "b.jpg", "./a.jpg", "a.jpg")])
    assert told(file) == f"{file} lists a.jpg 3 times; give each image one entry with all texts"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_list_may_have_any_encoding_of_json(listed, encoding):
    text = json.dumps([{"image": "é.jpg", "caption": "ein Bär"}], ensure_ascii=False)
    assert read_captions(listed(text.encode(encoding))) == [CaptionedImage("é.jpg", ["ein Bär"])]


def test_a_list_may_be_json_lines(listed):
    lines = ['{"image": "a.jpg", "caption": "one"}', "", ' {"image": "b.jpg", "caption": ["two"]}', ""]
    expected = [CaptionedImage("a.jpg", ["one"]), CaptionedImage("b.jpg", ["two"])]
    for encoding in ("utf-8-sig", "utf-16"):
        assert read_captions(listed("\r\n".join(lines).encode(encoding))) == expected
    assert "cannot be read as JSON (Expecting" in told(listed(b'{"image": "a.jpg"}\n{image}\n'))


NOCAPS = {
    "images": [{"id": 1, "file_name": "a.jpg", "domain": "in-domain"}, {"id": 0, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 0, "caption": "three"},
        {"image_id": 1, "caption": "one"},
        {"image_id": 1, "caption": "two"},
    ],
}


def test_nocaps_form_is_read_in_the_order_of_its_images(listed):
    expected = [CaptionedImage("a.jpg", ["one", "two"], "in-domain"), CaptionedImage("b.jpg", ["three"])]
    assert read_captions(listed(NOCAPS)) == expected


def test_ids_may_be_numbers_in_one_place_and_texts_in_another(listed):
    images = [{"id": "000001", "file_name": "a.jpg"}, {"id": 2.0, "file_name": "b.jpg"}, {"id": "x", "file_name": "c"}]
    annotations = [{"image_id": key, "caption": str(key)} for key in (1, "2", "x")]
    found = read_captions(listed({"images": images, "annotations": annotations}))
    assert [image.captions for image in found] == [["1"], ["2"], ["x"]]
    assert [image.key for image in found] == ["1", "2", "x"]


@pytest.mark.parametrize("annotations", [{}, {"annotations": None}, {"annotations": []}])
def test_a_test_set_may_keep_its_captions_back(listed, annotations):
    entries = read_captions(listed({"images": NOCAPS["images"]} | annotations))
    assert [entry.captions for entry in entries] == [[], []]


KARPATHY = {
    "images": [
        {"filename": "a.jpg", "filepath": "val2014", "split": "test", "sentences": [{"raw": "one"}], "cocoid": 7},
        {"filename": "b.jpg", "filepath": "train2014", "split": "train", "sentences": [{"raw": "two"}]},
        {"filename": "c.jpg", "split": "restval", "sentences": [{"raw": "three"}, {"raw": "four"}]},
        {"filename": "d.jpg", "split": "val", "sentences": [{"raw": "five"}]},
    ]
}


def test_of_karpathys_file_the_wanted_splits_are_taken(listed):
    file = listed(KARPATHY)
    assert read_captions(file) == [CaptionedImage("val2014/a.jpg", ["one"])] and read_captions(file)[0].key == "7"
    trained = [CaptionedImage("train2014/b.jpg", ["two"]), CaptionedImage("c.jpg", ["three", "four"])]
    assert read_captions(file, TRAINING) == trained


def test_a_split_that_karpathys_file_lacks_is_told_with_those_it_has(listed):
    file = listed({"images": KARPATHY["images"][1:]})
    assert told(file) == f"{file} has no image of the split test; it has train, restval, val"


# ---- what is wrong ----


def test_a_list_that_is_not_there_or_no_json_is_told(listed, tmp_path):
    assert told(tmp_path / "no.json") == f"no caption list {tmp_path}/no.json"
    for content in ("{", b"\xff\xfe\x00", "[" * 100_000, b"[\xff]", "9" * 5000):
        file = listed(content)
        assert told(file).startswith(f"{file} cannot be read as JSON (")


@pytest.mark.parametrize("held", [{}, "words", 3, None, {"images": 3}, {"a.jpg": 3}])
def test_json_of_another_form_is_told_with_the_known_ones(listed, held):
    file = listed(json.dumps(held))
    message = told(file)
    assert message.startswith(f'{file} is no caption list; it must hold [{{"image": path, "caption": text or texts}}')


@pytest.mark.parametrize("held", [[], {"images": []}])
def test_an_empty_list_is_told(listed, held):
    file = listed(held)
    assert told(file).startswith(f"{file} lists no image; it must hold [")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("a.jpg", "names no image; it must be"),
        (None, "names no image; it must be"),
        ({"caption": "x"}, "names no image; it must be"),
        ({"image": "", "caption": "x"}, "names no image; it must be"),
        ({"image": None, "caption": "x"}, "names no image; it must be"),
        ({"image": "b.jpg"}, '(b.jpg) has no captions; "caption" must hold one text or more'),
        ({"image": "b.jpg", "caption": []}, '(b.jpg) has no captions; "caption" must hold one text or more'),
        ({"image": "b.jpg", "caption": ["one", " "]}, "(b.jpg) is empty; give it words or take it out"),
        ({"image": "b.jpg", "caption": [3]}, "(b.jpg) must be a text and is 3"),
        ({"image": "b.jpg", "caption": [None]}, "(b.jpg) must be a text and is None"),
        ({"image": "b.jpg", "caption": [[["x"]]]}, "(b.jpg) must be a text and is [['x']]"),
        ({"image": "b.jpg", "caption": "x", "image_id": [1]}, "must be a whole number or a text and is [1]"),
    ],
)
def test_a_broken_entry_is_told_with_its_number(listed, entry, message):
    file = listed([{"image": "a.jpg", "caption": "fine"}, entry])
    said = told(file)
    assert f"{file}, entry 2" in said and message in said


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"images": [{"id": 1}]}, "image 1 names no file"),
        ({"images": ["a.jpg"]}, "image 1 names no file"),
        ({"images": [None]}, "image 1 names no file"),
        ({"images": [{"file_name": "a.jpg"}]}, "must be a whole number or a text and is None"),
        ({"images": [{"id": True, "file_name": "a.jpg"}]}, "must be a whole number or a text and is True"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "domain": 3}]}, "image 1 names no file"),
        ({"images": [NOCAPS["images"][0], NOCAPS["images"][0]]}, "image 2 (a.jpg) has the id 1 of another image"),
        (
            {"images": NOCAPS["images"], "annotations": [{"image_id": 7, "caption": "x"}]},
            "annotation 1 is of the image",
        ),
        ({"images": NOCAPS["images"], "annotations": [{"caption": "x"}]}, "the image_id of"),
        ({"images": NOCAPS["images"], "annotations": [{"image_id": {}, "caption": "x"}]}, "the image_id of"),
        ({"images": NOCAPS["images"], "annotations": [None]}, "the image_id of"),
        ({"images": NOCAPS["images"], "annotations": 3}, "has annotations that are no list"),
        (
            {"images": NOCAPS["images"], "annotations": [{"image_id": 0, "caption": ""}]},
            "(b.jpg) is empty",
        ),
        ({"images": [{"sentences": [], "split": "test"}]}, "image 1 names no file"),
        ({"images": [{"filename": "a", "sentences": 3}]}, "image 1 (a) has no list of sentences"),
        ({"images": [{"filename": "a", "sentences": [{}]}]}, "of list.json, image 1 (a) must be a text and is None"),
        ({"images": [{"filename": "a", "sentences": [], "split": []}]}, "list.json lists no image"),
    ],
)
def test_a_broken_list_of_another_form_is_told_with_its_entry(broken, message):
    with pytest.raises(UserError) as error:
        captions_in(broken, "list.json")
    assert "list.json" in str(error.value) and message in str(error.value)


def test_infinite_and_huge_numbers_are_no_ids():
    for number in (float("inf"), float("nan"), 1.5):
        with pytest.raises(UserError, match="the id must be a whole number"):
            as_id(number, "the id")
    assert as_id(10**4000, "the id") == "1" + "0" * 4000


def test_a_broken_caption_of_an_object_is_told_with_its_name():
    for value in (3, None, {}, [], [None]):
        with pytest.raises(UserError, match=r"list.json \(b.jpg\)"):
            captions_in({"a.jpg": "a dog", "b.jpg": value}, "list.json")


def test_lone_surrogates_in_captions_are_question_marks(listed):
    assert read_captions(listed(r'[{"image": "a", "caption": "dog \ud83d"}]'))[0].captions == ["dog ?"]


def test_a_name_that_stands_twice_is_told(listed):
    file = listed('{"a": "dog", "b": "cat", "a": "bird"}')
    assert told(file) == f"{file} names 'a' twice; keep one of them"


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400)
KEYS = st.sampled_from(
    [
        "image",
        "images",
        "caption",
        "annotations",
        "id",
        "image_id",
        "file_name",
        "filename",
        "split",
        "sentences",
        "raw",
    ]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(VALUES)
def test_any_json_is_a_list_or_told_with_its_file(held):
    try:
        images = captions_in(held, "list.json")
    except UserError as error:
        assert "list.json" in str(error)
    else:
        assert all(image.image and all(image.captions) for image in images)


@given(st.binary(max_size=80))
def test_any_bytes_are_json_or_told_with_their_file(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_bytes(content)
    try:
        read_json(file)
    except UserError as error:
        assert str(file) in str(error)
