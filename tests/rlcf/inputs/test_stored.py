"""Datasets of Hugging Face from small parquet files, in place."""

import builtins
import io
import os

import numpy as np
import pytest
from PIL import Image

from caption.datasets import load_dataset as caption_dataset
from classification.datasets import load_dataset as labelled_dataset
from retrieval.datasets import load_dataset as retrieval_dataset
from rlcf.errors import UserError
from rlcf.inputs.images import read_image
from rlcf.inputs.stored import Columns, open_stored

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The library's cache is the test's own, and it does not look into the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def encoded(number):
    pixels = np.full((9, 7 + number, 3), 10 * number, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": f"{number}.png"}


COUNT = 7
LABELS = [number % 3 for number in range(COUNT)]
IMAGES = [encoded(number) for number in range(COUNT)]
CLASSES = datasets.ClassLabel(names=["fire ant", "sea_lion", "bee"])
TEXTS = [[f"a picture of {number}", f"number {number}"] for number in range(COUNT)]
Listed = datasets.List(datasets.Value("string"))


@pytest.fixture
def written(tmp_path):
    """Writes columns as a parquet file of several groups of rows; returns the data folder."""

    def write(columns, features=None, name="set/data/test-00000-of-00001.parquet", group=3):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        whole = datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)
        whole.to_parquet(str(file), batch_size=group)
        return str(tmp_path)

    return write


@pytest.fixture
def labelled(written):
    return written({"image": IMAGES, "label": LABELS}, {"image": datasets.Image(), "label": CLASSES})


def told(load, *arguments, **settings):
    with pytest.raises(UserError) as error:
        load(*arguments, **settings)
    return str(error.value)


@pytest.mark.parametrize("name", ["hf:set", "hf:set:test", "hf:set/data/test-00000-of-00001.parquet"])
def test_images_labels_and_class_names_are_read_by_the_types_of_the_columns(labelled, name):
    dataset = labelled_dataset(name, labelled)
    assert dataset.classnames == ["fire ant", "sea lion", "bee"] and not dataset.published
    assert [label for _, label in dataset.samples] == LABELS
    assert dataset.ids == [f"{number:06d}" for number in range(COUNT)]
    for number in (5, 0, 6, 2):
        image = read_image(dataset.files[number])
        assert image.size == (7 + number, 9) and image.getpixel((0, 0)) == (10 * number,) * 3


def test_parquet_files_are_read_in_place(labelled, tmp_path):
    read_image(labelled_dataset("hf:set", labelled).files[4])
    assert not list((tmp_path / "cache").rglob("*.arrow"))


def test_rows_of_several_files_follow_each_other(written):
    for number in range(2):
        part = slice(4 * number, 4 * number + 4)
        name = f"set/data/test-0000{number}-of-00002.parquet"
        columns = {"image": IMAGES[part], "label": LABELS[part]}
        data = written(columns, {"image": datasets.Image(), "label": CLASSES}, name)
    dataset = labelled_dataset("hf:set", data)
    assert [read_image(file).width for file in dataset.files] == [7 + number for number in range(COUNT)]


def test_names_of_wordnet_ids_are_imagenets(written):
    columns = {"image": IMAGES[:2], "label": [1, 0]}
    classes = datasets.ClassLabel(names=["n01440764", "n01443537"])
    data = written(columns, {"image": datasets.Image(), "label": classes})
    assert labelled_dataset("hf:set", data).classnames == ["tench", "goldfish"]


def test_plain_bytes_and_whole_numbers_need_a_file_of_class_names(written, tmp_path):
    data = written({"picture": [image["bytes"] for image in IMAGES], "class": LABELS})
    assert "numbers its classes without naming them; give --classnames FILE" in told(labelled_dataset, "hf:set", data)
    names = tmp_path / "names.txt"
    names.write_text("ant\nlion\nbee\n")
    dataset = labelled_dataset("hf:set", data, classnames=str(names))
    assert dataset.classnames == ["ant", "lion", "bee"] and read_image(dataset.files[3]).width == 10
    names.write_text("ant\nlion\n")
    assert "names.txt holds 2 class names, and hf:set has a label 2" in told(
        labelled_dataset, "hf:set", data, classnames=str(names)
    )


def test_labels_that_are_texts_name_their_classes(written):
    data = written({"image": IMAGES, "label": [("cat", "dog")[n % 2] for n in range(COUNT)]}, None)
    dataset = labelled_dataset("hf:set", data)
    assert dataset.classnames == ["cat", "dog"] and dataset.samples[1][1] == 1


def test_a_split_without_labels_is_told(written):
    data = written({"image": IMAGES, "label": [-1] * COUNT}, {"image": datasets.Image(), "label": CLASSES})
    assert told(labelled_dataset, "hf:set", data).startswith("row 0 of hf:set has the label -1, so it is not labelled;")


def test_captions_are_read_for_retrieval_and_captioning(written):
    data = written({"image": IMAGES, "caption": TEXTS}, {"image": datasets.Image(), "caption": Listed})
    retrieval, caption = retrieval_dataset("hf:set", data), caption_dataset("hf:set", data)
    assert retrieval.captions == TEXTS and [sample.captions for sample in caption.samples] == TEXTS
    assert retrieval.ids == caption.ids and read_image(caption.files[2]).width == 9


def test_one_text_a_row_and_karpathys_sentences_are_captions(written):
    flat = written({"image": IMAGES, "text": [texts[0] for texts in TEXTS]}, None, "flat/test.parquet")
    assert retrieval_dataset("hf:flat", flat).captions == [[texts[0]] for texts in TEXTS]
    raw = [[{"raw": text, "imgid": 3} for text in texts] for texts in TEXTS]
    listed = written({"image": IMAGES, "sentences": raw}, None, "raw/test.parquet")
    assert retrieval_dataset("hf:raw", listed).captions == TEXTS


def test_of_several_columns_of_texts_the_one_called_caption_is_taken_or_one_is_asked_for(written):
    columns = {"image": IMAGES, "ids": TEXTS, "caption": [texts[:1] for texts in TEXTS]}
    named = written(columns, {"image": datasets.Image(), "ids": Listed, "caption": Listed}, "named/test.parquet")
    assert retrieval_dataset("hf:named", named).captions == [texts[:1] for texts in TEXTS]
    columns = {"image": IMAGES, "short": TEXTS, "long": TEXTS, "size": LABELS}
    features = {"image": datasets.Image(), "short": Listed, "long": Listed, "size": datasets.Value("int64")}
    data = written(columns, features)
    message = "hf:set has several columns of captions; give --caption-column one of short, long"
    assert told(retrieval_dataset, "hf:set", data) == message
    assert retrieval_dataset("hf:set", data, columns=Columns(answer="long")).captions == TEXTS
    wrong = told(retrieval_dataset, "hf:set", data, columns=Columns(answer="wide"))
    assert wrong == "hf:set has no column 'wide' for --caption-column; it has image, short, long, size"
    assert "the column size of hf:set holds no captions" in told(
        retrieval_dataset, "hf:set", data, columns=Columns(answer="size")
    )


def test_several_columns_of_images_are_asked_for(written):
    features = {"image": datasets.Image(), "mask": datasets.Image(), "label": CLASSES}
    data = written({"image": IMAGES, "mask": IMAGES[::-1], "label": LABELS}, features)
    assert told(labelled_dataset, "hf:set", data) == (
        "hf:set has several columns of images; give --image-column one of image, mask"
    )
    dataset = labelled_dataset("hf:set", data, columns=Columns(image="mask"))
    assert read_image(dataset.files[0]).width == 6 + COUNT


def test_a_dataset_without_images_is_told(written):
    data = written({"text": ["a"], "label": [0]})
    assert told(caption_dataset, "hf:set", data).startswith("hf:set has no column of images among text, label;")


def test_a_null_caption_and_a_null_image_are_told_with_their_row(written):
    texts = [*TEXTS[:3], None, *TEXTS[4:]]
    data = written({"image": IMAGES, "caption": texts}, {"image": datasets.Image(), "caption": Listed})
    assert "a caption of row 3 of hf:set" in told(retrieval_dataset, "hf:set", data)
    images = [*IMAGES[:2], None, *IMAGES[3:]]
    data = written({"image": images, "label": LABELS}, {"image": datasets.Image(), "label": CLASSES}, "nulls/a.parquet")
    file = labelled_dataset("hf:nulls", data).files[2]
    assert told(read_image, file) == "row 2 of hf:nulls cannot be read as an image (the row holds no picture)"


def test_a_dataset_of_several_splits_needs_one(labelled, written):
    features = {"image": datasets.Image(), "label": CLASSES}
    written({"image": IMAGES[:2], "label": [0, 1]}, features, "set/data/train-00000-of-00001.parquet")
    message = told(labelled_dataset, "hf:set", labelled)
    assert message == "dataset hf:set has several splits; write hf:NAME:SPLIT with one of train, test"
    assert "has no split 'val'; write hf:NAME:SPLIT with one of train, test" in told(
        labelled_dataset, "hf:set:val", labelled
    )
    assert len(labelled_dataset("hf:set:train", labelled).files) == 2


def test_of_a_dataset_of_several_parts_one_has_to_be_named(written, tmp_path):
    features = {"image": datasets.Image(), "label": CLASSES}
    for number, part in enumerate(("small", "large")):
        columns = {"image": IMAGES[: 2 + number], "label": LABELS[: 2 + number]}
        data = written(columns, features, f"set/{part}.parquet")
    parts = "".join(f"- config_name: {part}\n  data_files: {part}.parquet\n" for part in ("small", "large"))
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{parts}---\n")
    assert "small" in told(labelled_dataset, "hf:set", data)
    for number, part in enumerate(("small", "large")):
        assert len(labelled_dataset("hf:set", data, columns=Columns(config=part)).files) == 2 + number


@pytest.mark.parametrize("split", [None, "test"])
def test_a_dataset_that_was_saved_to_disk_is_read(tmp_path, split):
    features = datasets.Features({"image": datasets.Image(), "label": CLASSES})
    held = datasets.Dataset.from_dict({"image": IMAGES, "label": LABELS}, features=features)
    (datasets.DatasetDict({split: held}) if split else held).save_to_disk(str(tmp_path / "saved"))
    dataset = labelled_dataset("hf:saved", str(tmp_path))
    assert [label for _, label in dataset.samples] == LABELS and read_image(dataset.files[4]).width == 11


def test_a_pipe_in_the_place_of_a_file_is_told_and_not_waited_for(labelled, tmp_path):
    (file,) = (tmp_path / "set" / "data").iterdir()
    file.unlink()
    os.mkfifo(file)
    for name in ("hf:set", f"hf:{file}"):
        assert f"{file.name} of dataset {name} is no regular file" in told(labelled_dataset, name, labelled)
    saved = datasets.Dataset.from_dict({"image": IMAGES[:1], "label": [0]})
    saved.save_to_disk(str(tmp_path / "saved"))
    (part,) = (tmp_path / "saved").glob("*.arrow")
    part.unlink()
    os.mkfifo(part)
    assert "is no regular file; take it away" in told(labelled_dataset, "hf:saved", str(tmp_path))


def test_a_folder_of_another_format_is_read_through_the_library(tmp_path):
    for number, name in enumerate(("ant", "bee")):
        (tmp_path / "pics" / "test" / name).mkdir(parents=True)
        (tmp_path / "pics" / "test" / name / "1.png").write_bytes(IMAGES[number]["bytes"])
    dataset = labelled_dataset("hf:pics", str(tmp_path))
    assert dataset.classnames == ["ant", "bee"]
    assert [read_image(file).width for file in dataset.files] == [7, 8]


def test_what_is_not_there_or_no_dataset_is_told(tmp_path):
    assert (
        told(open_stored, "hf:", "")
        == "dataset hf needs its name or folder: hf:NAME_OR_FOLDER, or hf:NAME_OR_FOLDER:split"
    )
    assert told(open_stored, "hf:/no/such", "") == "dataset hf:/no/such was not found; there is no /no/such"
    assert told(open_stored, "hf:some/name", str(tmp_path)).startswith("dataset hf:some/name cannot be read (")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "test.parquet").write_bytes(b"PAR1 and no more")
    assert told(open_stored, "hf:damaged", str(tmp_path)).startswith("dataset hf:damaged cannot be read (")


def test_a_column_whose_bytes_are_damaged_is_told(labelled, tmp_path):
    file = tmp_path / "set" / "data" / "test-00000-of-00001.parquet"
    whole, place = file.read_bytes(), pyarrow.parquet.read_metadata(file).row_group(0).column(2).data_page_offset
    file.write_bytes(whole[:place] + b"\xff" * 9 + whole[place + 9 :])
    said = told(labelled_dataset, "hf:set", labelled)
    assert said.startswith("the column label of hf:set cannot be read (") and said.endswith("get the dataset again")


@pytest.mark.parametrize("name", ["7", '" "', "null"])
def test_a_class_that_is_no_text_is_told(labelled, tmp_path, name):
    file = tmp_path / "set" / "data" / "test-00000-of-00001.parquet"
    table = pyarrow.parquet.read_table(file)
    described = table.schema.metadata[b"huggingface"].replace(b'"sea_lion"', name.encode())
    pyarrow.parquet.write_table(table.replace_schema_metadata({b"huggingface": described}), file)
    assert "mend the ClassLabel of its label" in told(labelled_dataset, "hf:set", labelled)


def test_more_rows_than_bytes_are_told(written, tmp_path):
    label = pyarrow.array([0] * 100_000, pyarrow.int64())
    picture = pyarrow.nulls(100_000, pyarrow.binary())
    (tmp_path / "set").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"image": picture, "label": label}), tmp_path / "set" / "test.parquet")
    assert "hf:set tells of 100,000 rows, more than its files have bytes" in told(open_stored, "hf:set", str(tmp_path))


def test_a_missing_library_is_told_with_what_installs_it(monkeypatch):
    original = builtins.__import__

    def without(name, *arguments, **settings):
        if name == "datasets":
            raise ImportError(name)
        return original(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", without)
    message = told(open_stored, "hf:set", "")
    assert message == "dataset hf:set is read by the library datasets; pip install datasets"
