import json
import os
import pickle

import numpy as np
import pytest
import torch

from caption.extract_features import main
from caption.training import extract as extraction
from caption.training.features import Features, read_features, write_features
from rlcf.clip.loading import load_clip
from rlcf.errors import UserError

CAPTIONS = ["a dog", "an owl", "a cat", "a key"]


def published(**changed):
    return {
        "clip_text_embedding": torch.randn(4, 6),
        "clip_image_embedding": torch.randn(2, 6).half(),
        "captions": CAPTIONS,
        "image_ids": [7, 7, 9, 9],
        "text_index": [0, 1, 2, 3],
        "image_index": [0, 0, 1, 1],
        **changed,
    }


@pytest.fixture
def pickled(tmp_path):
    def write(held):
        (tmp_path / "features.pkl").write_bytes(pickle.dumps(held))
        return str(tmp_path / "features.pkl")

    return write


def test_features_come_back_as_they_were_written(tmp_path):
    written = Features(CAPTIONS, [0, 0, 1, 1], [0, 1, 2, 3], torch.randn(2, 6), torch.randn(4, 6), "demo-student")
    write_features(tmp_path, written)
    read = read_features(str(tmp_path))
    assert torch.equal(read.of_captions("image", ""), written.image[[0, 0, 1, 1]])
    assert torch.equal(read.text, written.text) and (read.captions, read.student) == (CAPTIONS, "demo-student")


def test_a_published_pickle_is_read(pickled):
    held = published()
    features = read_features(pickled(held))
    assert torch.equal(features.text, held["clip_text_embedding"])
    assert torch.equal(features.of_captions("image", ""), held["clip_image_embedding"].float()[[0, 0, 1, 1]])


def test_a_published_pickle_without_images_is_for_capdec(pickled):
    features = read_features(pickled(published(clip_image_embedding=None)))
    assert features.of_captions("text", "it").shape == (4, 6)
    with pytest.raises(UserError, match="it holds no image features; extract them"):
        features.of_captions("image", "it")


class Touch:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda file: Touch(file), "posix.mkdir"),
        (lambda file: published(captions=np.array(CAPTIONS)), r"numpy\S*_reconstruct"),
        (lambda file: published(image_ids=[{1j}]), "builtins.complex"),
    ],
)
def test_other_objects_in_a_pickle_are_refused_by_name(make, named, pickled, tmp_path):
    with pytest.raises(UserError, match=rf"holds a {named}, which is not loaded"):
        read_features(pickled(make(str(tmp_path / "made"))))
    assert not (tmp_path / "made").exists()


class HiddenTouch:
    """A tensor's numbers, as torch pickles them, that are code."""

    def __init__(self, file):
        self.code = pickle.dumps(Touch(file), protocol=2)

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.code,)


def test_code_hidden_in_a_tensors_numbers_is_not_run(pickled, tmp_path):
    with pytest.raises(UserError, match="is damaged or no pickle"):
        read_features(pickled(published(clip_text_embedding=HiddenTouch(str(tmp_path / "made")))))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"captions": []}, "holds no caption"),
        ({"captions": ["a dog", " ", "a cat", "a key"]}, "caption 1 of .* is empty"),
        ({"image_index": [0, 0, 1, 2]}, "image features of .* do not go with its 4 captions"),
        ({"text_index": [0, 1]}, "text features of .* do not go with its 4 captions"),
        ({"clip_text_embedding": torch.full((4, 6), torch.nan)}, "text features of .* are not finite"),
        ({"clip_text_embedding": 3}, "holds no caption features"),
        ({"clip_text_embedding": [torch.ones(6), torch.ones(5)]}, "features of unequal length or kind"),
        ({"clip_text_embedding": [1, 2]}, "features of unequal length or kind"),
        ({"image_index": [0, 0, 1, 1e999]}, "holds no caption features"),
        ({"image_index": [0, 0, 1, "x"]}, "holds no caption features"),
        ({"captions": "a dog"}, "holds no caption features"),
        ({"captions": ["a dog", "an \udce9", "a cat", "a key"]}, "caption 1 of .* holds half a character"),
    ],
)
def test_what_does_not_fit_together_is_told(changed, told, pickled):
    with pytest.raises(UserError, match=told):
        read_features(pickled(published(**changed)))


def test_what_is_no_features_is_told(tmp_path, pickled):
    (tmp_path / "broken.pkl").write_bytes(b"no pickle")
    for path, told in {
        tmp_path / "broken.pkl": "is damaged or no pickle",
        tmp_path / "nowhere.pkl": "no features",
        tmp_path / "nowhere": "give a folder that caption/extract_features.py wrote",
        tmp_path: "holds no captions.json",
    }.items():
        with pytest.raises(UserError, match=told):
            read_features(str(path))
    with pytest.raises(UserError, match="needs a dict with 'captions'"):
        read_features(pickled([1, 2]))


def test_a_list_of_rows_is_read(pickled):
    rows = list(torch.randn(4, 6))
    assert torch.equal(read_features(pickled(published(clip_text_embedding=rows))).text, torch.stack(rows))


@pytest.mark.parametrize(
    "listed", ["[" * 100_000, "{", "3", '{"captions": ["a"], "image_index": [1e999], "text_index": [0]}']
)
def test_a_damaged_list_is_told(listed, tmp_path):
    write_features(tmp_path, Features(CAPTIONS, [0, 0, 1, 1], [0, 1, 2, 3], torch.randn(2, 6), torch.randn(4, 6)))
    (tmp_path / "captions.json").write_text(listed)
    with pytest.raises(UserError, match=str(tmp_path)):
        read_features(str(tmp_path))


@pytest.fixture
def extract(data, tmp_path):
    def run(*flags, output="features"):
        where = ["--data", str(data), "--captions", "clean.json", "--output", str(tmp_path / output)]
        main([*where, "--student", "demo-student", "--workers", "0", "--device", "cpu", *flags])
        return read_features(str(tmp_path / output))

    return run


def test_extraction_writes_the_clips_own_features(extract, data):
    features = extract()
    listed = json.loads((data / "clean.json").read_text())
    assert features.captions == [caption for entry in listed for caption in entry["caption"]]
    assert features.image_index == [i for i in range(8) for _ in range(5)]
    torch.testing.assert_close(features.text, load_clip("demo-student").encode_text(features.captions))
    torch.testing.assert_close(features.image.norm(dim=1), torch.ones(8))


def test_a_stopped_extraction_goes_on_and_ends_as_an_uninterrupted_one(extract, monkeypatch, tmp_path):
    whole = extract("--chunk", "3", output="whole")
    encode, calls = extraction.encode_images, []

    def stopping(clips, files, *rest, **named):
        calls.append(len(files))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(clips, files, *rest, **named)

    monkeypatch.setattr(extraction, "encode_images", stopping)
    with pytest.raises(KeyboardInterrupt):
        extract("--chunk", "3")
    with (tmp_path / "features" / "image.f32").open("ab") as stream:
        stream.write(b"torn")
    again = extract("--chunk", "3")
    assert calls == [3, 3, 3, 2]
    assert torch.equal(again.image, whole.image) and torch.equal(again.text, whole.text)
    assert not list((tmp_path / "features").glob("*.f32"))


def test_a_stopped_extraction_does_not_go_on_with_another_clip(extract, monkeypatch):
    monkeypatch.setattr(extraction, "write_features", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extract()
    with pytest.raises(UserError, match="another config: student"):
        extract("--student", "demo-reward")


def test_capdec_features_need_no_image(extract, data):
    for file in (data / "clean").iterdir():
        file.unlink()
    features = extract("--no-images")
    assert features.image is None and features.text.shape == (40, 128)


def test_an_image_that_cannot_be_read_stops_or_is_left_out_with_its_captions(extract, data):
    (data / "clean" / "2.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"2.png cannot be read as an image"):
        extract(output="refused")
    features = extract("--skip-bad-images")
    assert features.image.shape == (7, 128) and len(features.captions) == 35
    assert features.image_index[10] == 2 and features.image.isfinite().all()
