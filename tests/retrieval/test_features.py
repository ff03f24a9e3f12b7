import dataclasses
import os

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from retrieval import features as module
from retrieval.datasets import Dataset, load_dataset
from retrieval.features import FrozenFeatures
from rlcf.errors import UserError
from rlcf.run.shard import Shard
from tests.tools import in_processes, wait_for


@pytest.fixture
def listed(tmp_path):
    """Three pictures with a caption each."""
    captions = [["a dog above a cat"], ["a key below a car"], ["an owl to the left of a house"]]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.new("RGB", (64, 64), (80 * number, 40, 40)).save(file)
    return Dataset("json:three", files, [file.name for file in files], captions)


@pytest.fixture
def freeze(tmp_path, demo_clip, monkeypatch):
    """The frozen features of a dataset; `computed` lists what was not in the folder yet."""
    student, reward = demo_clip("demo-student"), demo_clip("demo-reward")
    computed = []
    encode_batches, encode_text = module.encode_batches, type(student).encode_text
    monkeypatch.setattr(
        module, "encode_batches", lambda *arguments: computed.append("images") or encode_batches(*arguments)
    )
    monkeypatch.setattr(
        type(student), "encode_text", lambda *arguments: computed.append("texts") or encode_text(*arguments)
    )

    def make(dataset, **settings):
        frozen = FrozenFeatures(tmp_path / "features", dataset, student, Shard(), workers=0, **settings)
        computed.clear()
        return frozen, [student, reward], computed

    return make


def test_features_are_those_of_each_model_in_the_order_asked_for(listed, freeze):
    frozen, clips, _ = freeze(listed)
    for kind in (frozen.images, frozen.texts):
        whole = kind(clips, range(3))
        assert [tuple(features.shape) for features in whole] == [(3, 128)] * 2
        assert all(torch.allclose(features.norm(dim=-1), torch.ones(3)) for features in whole)
        some = kind(clips, [2, 0])
        assert all(torch.allclose(part, full[[2, 0]], atol=1e-5) for part, full in zip(some, whole, strict=True))


def test_what_was_computed_once_is_read_again(listed, freeze):
    frozen, clips, computed = freeze(listed)
    before = [frozen.images(clips, range(3)), frozen.texts(clips, range(3))]
    assert computed == ["images", "texts", "texts"]
    again, clips, computed = freeze(listed)
    after = [again.images(clips, range(3)), again.texts(clips, range(3))]
    assert computed == []
    assert all(
        torch.equal(a, b) for side, other in zip(before, after, strict=True) for a, b in zip(side, other, strict=True)
    )
    names = sorted(file.name for file in (frozen.folder).iterdir())
    assert names == [
        f"json-three-{kind}-demo-{model}.safetensors" for kind in ("images", "texts") for model in ("reward", "student")
    ]


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_share_the_batches_and_write_what_one_does(listed, freeze, tmp_path, monkeypatch, count):
    monkeypatch.setattr(module, "IMAGE_BATCH", 1)
    monkeypatch.setattr(module, "TEXT_BATCH", 1)
    one, clips, _ = freeze(listed)
    encode_text, helped = type(clips[0]).encode_text, tmp_path / "helped"

    def slowed(clip, texts):
        """The first process waits with its first batch until another one has encoded a batch."""
        if os.environ["RANK"] == "0":
            wait_for(helped)
        features = encode_text(clip, texts)
        helped.touch()
        return features

    def process():
        monkeypatch.setattr(type(clips[0]), "encode_text", slowed)
        several = dataclasses.replace(one, folder=tmp_path / "several", shard=Shard.from_environment())
        assert [len(features) for features in several.texts(clips, range(3))] == [3, 3]
        assert [len(features) for features in several.images(clips, range(3))] == [3, 3]

    assert in_processes(count, process) == [0] * count
    expected = one.texts(clips, range(3)), one.images(clips, range(3))
    for file in one.folder.iterdir():
        assert (tmp_path / "several" / file.name).read_bytes() == file.read_bytes()
    assert len(expected) == 2 and len(list((tmp_path / "several").iterdir())) == 4


def test_a_model_that_comes_later_is_computed_alone(listed, freeze):
    frozen, clips, computed = freeze(listed)
    (first,) = frozen.texts(clips[:1], range(3))
    assert torch.equal(frozen.texts(clips, range(3))[0], first) and computed == ["texts", "texts"]


STALE = ["captions", "pictures", "weights", "damaged", "edited", "another part"]


@pytest.mark.parametrize("what", STALE)
def test_what_depends_on_something_that_changed_is_computed_anew(listed, freeze, what):
    frozen, clips, _ = freeze(listed)
    frozen.images(clips, range(3)), frozen.texts(clips, range(3))
    wanted = range(3)
    if what == "captions":
        listed = Dataset(listed.name, listed.files, listed.ids, [["a dog above a bee"], *listed.captions[1:]])
    if what == "pictures":
        Image.new("RGB", (64, 64), "white").save(listed.files[1])
        os.utime(listed.files[1], ns=(1, 1))
    if what == "weights":
        clips[1].__dict__["digest"] = "0" * 64
    if what == "damaged":
        for file in frozen.folder.glob("*demo-student.safetensors"):
            file.write_bytes(file.read_bytes()[:100])
    if what == "edited":
        for file in frozen.folder.glob("*demo-student.safetensors"):
            file.write_bytes(file.read_bytes()[:-1] + b"\7")
    if what == "another part":
        wanted = range(2)
    again, clips, computed = freeze(listed)
    sides = [again.images(clips, wanted), again.texts(clips, wanted)]
    assert (
        computed
        == {
            "captions": ["texts", "texts"],
            "pictures": ["images"],
            "weights": ["images", "texts"],
            "damaged": ["images", "texts"],
            "edited": ["images", "texts"],
            "another part": ["images", "texts", "texts"],
        }[what]
    )
    for kind, side in zip(("images", "texts"), sides, strict=True):
        for clip, features in zip(clips, side, strict=True):
            assert torch.equal(
                load_file(again.folder / f"json-three-{kind}-{clip.name}.safetensors")["features"], features
            )


def test_an_unreadable_image_is_named_or_its_features_are_nan(listed, freeze):
    listed.files[1].write_text("no picture")
    frozen, clips, _ = freeze(listed)
    with pytest.raises(UserError, match=r"1.png cannot be read as an image .*; mend it or take it out of the list"):
        frozen.images(clips, range(3))
    frozen, clips, _ = freeze(listed, skip_bad_images=True)
    for features in frozen.images(clips, range(3)):
        assert features.isnan().any(dim=1).tolist() == [False, True, False]


def test_reward_features_of_an_image_are_those_of_the_students_view(write_list, demo_clip, freeze):
    root = write_list([{"image": "wide.jpg", "caption": ["a dog above a cat"]}])
    Image.effect_noise((200, 64), 90).convert("RGB").save(root / "wide.jpg")
    frozen, (student, reward), _ = freeze(load_dataset("json:list", str(root)))
    (seen,) = frozen.images([reward], [0])
    with Image.open(root / "wide.jpg") as image:
        view = student.centre_view(image.convert("RGB")).unsqueeze(0)
    expected = reward.encode_image(reward.prepare((view * 255).round().to(torch.uint8)))
    assert torch.allclose(seen, expected, atol=1e-5)
