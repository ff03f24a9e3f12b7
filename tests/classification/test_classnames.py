"""Names of class folders: their order, their forms, and prompts made of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classification.config import ClassificationConfig
from classification.datasets import load_dataset
from classification.prompts import split_prompt
from rlcf.data.command import own_command
from rlcf.errors import UserError
from rlcf.inputs.class_names import natural_key, read_classnames, read_names

NUMBERS = ["0", "1", "10", "11", "2"]
NAMES = ["zero", "one", "ten", "eleven", "two"]


@pytest.fixture
def names_file(tmp_path):
    """Writes a file of names; returns it."""

    def write(text, name="names.txt"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    return write


def told(file, folders):
    with pytest.raises(UserError) as error:
        read_classnames(file, folders)
    return str(error.value)


@pytest.mark.parametrize("order", [1, -1])
def test_names_with_their_folders_may_stand_in_any_order(names_file, order):
    pairs = list(zip(NUMBERS, NAMES, strict=True))[::order]
    lines = "".join(f"{folder}\t{name}\r\n" for folder, name in pairs)
    held = json.dumps(dict(pairs) | {"unused": "x"})
    for file in (names_file(lines), names_file(held, "names.json"), names_file(b"\xef\xbb\xbf" + held.encode())):
        assert read_classnames(file, NUMBERS) == NAMES
    keras = names_file(
        json.dumps({str(i): [folder, f"{name}_fish"] for i, (folder, name) in enumerate(pairs)}), "k.json"
    )
    assert read_classnames(keras, NUMBERS) == [f"{name} fish" for name in NAMES]
    words = "".join(f"{folder} {name} fish\n" for folder, name in pairs)
    assert read_classnames(names_file(words), NUMBERS) == [f"{name} fish" for name in NAMES]


@pytest.mark.parametrize(
    "text",
    [
        '"a cat, tame"\n"an owl"\n',
        "'a cat, tame',\r\n'an owl',\r\n",
        "- a cat, tame\n- an owl\n",
        "0 a cat, tame\n1 an owl\n",
        "1. a cat, tame\n2. an owl\n",
        "0\ta cat, tame\n1\tan owl\n",
        "{0: 'a cat, tame',\n 1: 'an owl'}\n",
        '{"1": "an owl", "0": "a cat, tame"}',
        'folder,name\nowl,an owl\ncat,"a cat, tame"\n',
        "owl: an owl\ncat: a cat, tame\n",
        "owl/\tan owl\ncat/\ta  cat,\u00a0tame\n",
    ],
)
def test_what_lists_put_around_names_is_no_part_of_them(names_file, text):
    assert read_classnames(names_file(text), ["cat", "owl"]) == ["a cat, tame", "an owl"]


def test_numbers_that_are_part_of_the_names_stay(names_file):
    assert read_classnames(names_file("1 cent\n2 cents\n"), ["1 cent", "2 cents"]) == ["1 cent", "2 cents"]
    assert read_classnames(names_file("5 euro\n10 euro\n"), ["x", "y"]) == ["5 euro", "10 euro"]


def test_lines_of_three_columns_and_bytes_that_are_no_text_are_refused(names_file):
    assert "is not 'folder<TAB>name' as others are" in told(
        names_file("0\tcat\ta cat\n1\towl\tan owl\n"), ["cat", "owl"]
    )
    assert "is no text file in UTF-8" in told(names_file("a cat\nan owl\n".encode("utf-16-le")), ["cat", "owl"])


def test_an_accented_letter_may_be_one_character_in_the_file_and_two_in_the_folder(names_file):
    for text in ("caf\u00e9\tcup\nb\tbee\n", "caf\u00e9 cup\nb bee\n"):
        assert read_classnames(names_file(text), ["b", "cafe\u0301"]) == ["bee", "cup"]


@pytest.mark.parametrize(
    ("folders", "first"),
    [(NUMBERS, "'10' or '2'"), (["Zebra", "ant"], "'Zebra' or 'ant'"), (["a10", "a9"], "'a10' or 'a9'")],
)
def test_a_plain_list_is_refused_where_people_sort_the_folders_otherwise(names_file, folders, first):
    for file in (
        names_file("".join(f"x{i}\n" for i in range(len(folders)))),
        names_file(json.dumps(folders), "n.json"),
    ):
        message = told(file, folders)
        assert f"the order of the folders is not plain: {first} may be meant" in message
        assert message.endswith("write 'folder<TAB>name' in each line, or JSON {folder: name}")


@pytest.mark.parametrize("folders", [["00", "01", "02", "10"], ["n01", "n02"], ["ant", "bee", "cow"]])
def test_a_plain_list_is_taken_where_both_orders_are_the_same(names_file, folders):
    names = [f"name {i}" for i in range(len(folders))]
    assert read_classnames(names_file("\n".join(names)), folders) == names
    assert read_classnames(names_file(json.dumps(names), "names.json"), folders) == names


def test_a_plain_list_of_the_folders_own_names_in_another_order_is_refused(names_file):
    folders = ["bee", "fire_ant", "sea_lion"]
    assert read_classnames(names_file("bee\nfire ant\nSea Lion\n"), folders) == ["bee", "fire ant", "Sea Lion"]
    assert "'bee' or 'sea lion' may be meant" in told(names_file("sea lion\nfire ant\nbee\n"), folders)


def test_a_folder_without_a_name_is_told(names_file):
    assert told(names_file("0\tzero\n"), ["0", "1"]).endswith("names.txt has no name for the class folder '1'; add it")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\tzero\nnothing\n", "the line 'nothing' is not 'folder<TAB>name' as others are"),
        ("0\tzero\n0\tone\n", "the line '0\tone' names a folder twice"),
        ('{"0": 3, "1": "x"}', "the name of '0' in"),
        ('{"0": null, "1": "x"}', "must be a text and is None"),
        ('["zero", " "]', "is empty"),
        ("[" * 10_000, "cannot be read as JSON"),
        ('{"0": "a", "0": "b"}', "names '0' twice"),
    ],
)
def test_a_broken_file_of_names_is_told(names_file, text, message):
    file = names_file(text)
    said = told(file, ["0", "1"])
    assert message in said and str(file) in said


def test_json_that_holds_no_names_is_told(names_file):
    assert "holds no class names; it must hold" in told(names_file("3", "names.json"), ["0", "1"])


@given(st.binary(max_size=60))
def test_any_bytes_are_names_or_told_with_their_file(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any-names.txt"
    file.write_bytes(content)
    try:
        read_classnames(file, ["0", "1"])
    except UserError as error:
        assert str(file) in str(error)


@given(st.lists(st.text("a1B0é²", max_size=6)))
def test_the_natural_order_is_one_of_any_names(names):
    ordered = sorted(names, key=natural_key)
    assert sorted(names[::2] + names[1::2], key=natural_key) == ordered


def test_names_are_read_in_the_files_order_or_by_their_numbers(names_file):
    assert read_names(names_file("b\na\n")) == ["b", "a"]
    assert read_names(names_file('{"1": "b", "0": "a"}')) == ["a", "b"]
    assert read_names(names_file('{"y": "b", "x": "a"}')) == ["b", "a"]


def test_numbered_folders_get_the_names_that_are_theirs(plant, names_file):
    data = plant(*(f"{folder}/1.jpg" for folder in NUMBERS))
    file = names_file("".join(f"{folder}\t{name}\n" for folder, name in zip(NUMBERS, NAMES, strict=True)))
    dataset = load_dataset("folder", str(data), classnames=str(file))
    assert {
        id_.split("/")[0]: dataset.classnames[label]
        for id_, (_, label) in zip(dataset.ids, dataset.samples, strict=True)
    } == dict(zip(NUMBERS, NAMES, strict=True))


def test_names_that_stand_twice_are_told(plant, names_file):
    data = plant("a/1.jpg", "b/1.jpg", "c/1.jpg")
    names = names_file("crane\nheron\ncrane\n")
    dataset = load_dataset("folder", str(data), classnames=str(names))
    assert dataset.notes == ["classes of the same name cannot be told apart: 'crane' (a, c)"]
    assert load_dataset("folder", str(data)).notes == []


def test_what_a_folder_leaves_out_is_one_note(plant):
    data = plant("a/1.jpg", "b/1.jpg", "a/._1.jpg", ".cache/2.jpg")
    (data / "a" / "notes.txt").touch()
    expected = f"{data}: left out 2 hidden, 1 with another ending (.txt)"
    assert load_dataset("folder", str(data)).notes == [expected]


def test_a_folder_whose_name_is_no_utf8_has_a_readable_class_name(plant):
    data = plant("b/1.jpg", "caf\udce9/1.jpg")
    dataset = load_dataset("folder", str(data))
    assert dataset.classnames == ["b", "café"] and dataset.ids[1] == "caf\udce9/1.jpg" and dataset.files[1].is_file()


@pytest.mark.parametrize("folder", ["ImageNet/val", "imagenet/images/val"])
def test_a_flat_imagenet_is_called_flat_with_the_remedy(plant, folder):
    data = plant(*(f"dataset/tta_data/{folder}/ILSVRC2012_val_0000000{i}.JPEG" for i in range(3)))
    with pytest.raises(UserError) as error:
        load_dataset("I", str(data))
    assert str(error.value) == (
        f"{data}/dataset/tta_data/{folder} holds 3 images and no class folders (n01440764, ...), which tell the "
        f"classes of dataset I; sort them into class folders ({own_command()} convert imagenet-val)"
    )


# ---- prompts ----


@pytest.mark.parametrize(
    ("prompt", "words", "position"),
    [
        ("a photo of a {}.", "a photo of a", "end"),
        ("a photo of a {}", "a photo of a", "end"),
        ("a photo of a {class} .", "a photo of a", "end"),
        ("{} in a photo.", "in a photo", "front"),
        ("a photo {} of a.", "a photo of a", "middle"),
        ("{}.", "", "end"),
    ],
)
def test_a_prompt_may_show_where_the_class_name_stands(prompt, words, position):
    assert split_prompt(prompt) == (words, position)
    config = ClassificationConfig(prompt=prompt)
    assert (config.prompt, config.class_position) == (words, position)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a {} of a {}.", "must hold one {}"),
        ("a photo of a {", "must hold one {}"),
        ("a photo of a {}, a type of pet.", "has the class name in a place of its own"),
        ("a {} in three more words", "has the class name in a place of its own"),
    ],
)
def test_a_prompt_that_cannot_be_understood_is_told(prompt, message):
    with pytest.raises(UserError, match="--prompt") as error:
        ClassificationConfig(prompt=prompt)
    assert message in str(error.value)


def test_a_prompt_and_a_position_that_contradict_each_other_are_told():
    with pytest.raises(UserError, match="name two places; leave one out"):
        ClassificationConfig(prompt="a photo of a {}", class_position="front")
    assert ClassificationConfig(prompt="a photo of a", class_position="front").class_position == "front"
