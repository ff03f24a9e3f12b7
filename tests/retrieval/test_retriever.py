import json

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from retrieval import Retriever
from rlcf.errors import UserError
from rlcf.run.dealing import shuffled
from tests.tools import copied, same

from .conftest import SCENES, TEXTS

MODELS = {"student": "demo-student", "reward": ["demo-reward"], "device": "cpu"}
SETTINGS = MODELS | {"sample_k": 5, "steps": 2, "lr": 1e-3}
FLAGS = ["--steps", "2", "--save-logits"]
FEW = ["a dog above a cat", "a key below a car", "an owl to the left of a house"]


@pytest.fixture(scope="session")
def listed(scenes):
    """The blurred scenes: files and captions."""
    entries = json.loads((scenes / "blur.json").read_text())
    return [scenes / entry["image"] for entry in entries], [text for entry in entries for text in entry["caption"]]


def picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=generator)


def compare(answer, record, before, after, atol):
    """An answer has the command line's probabilities, ranks and rewards."""
    torch.testing.assert_close(answer.zero_shot, before.softmax(dim=-1), atol=1e-6, rtol=0)
    torch.testing.assert_close(answer.adapted, after.softmax(dim=-1), atol=atol, rtol=0)
    assert answer.zero_shot_ranking[:10] == record["zero_shot_top10"]
    assert answer.ranking[:10] == record["adapted_top10"]
    assert len(answer.trace) == len(record["steps"]) == 2 and answer.finite
    for step, told in zip(answer.trace, record["steps"], strict=True):
        assert step.answers == told["answers"] and step.loss == pytest.approx(told["loss"], abs=1e-4)
        assert step.rewards[0] == pytest.approx(told["rewards"][0], abs=1e-5)
        assert step.advantages[0] == pytest.approx(told["advantages"][0], abs=1e-5)


@pytest.mark.parametrize("flags", [{}, {"tune": "norm"}, {"method": "kd"}])
def test_images_find_the_texts_that_they_find_on_the_command_line(retrieve, listed, flags):
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    results = retrieve(*FLAGS, "--direction", "i2t", "--limit", 3, *words)
    files, texts = listed
    retriever = Retriever(texts=texts, **SETTINGS, **flags)
    logits, records = results.logits(), results.records()
    assert [record["index"] for record in records] == sorted(shuffled(SCENES, 0, 3))
    if flags.get("method") == "kd":
        answer = retriever(files[records[0]["index"]])
        assert all(step.answers is None and step.rewards is None for step in answer.trace)
        torch.testing.assert_close(answer.adapted, logits["adapted"][0].softmax(dim=-1), atol=1e-4, rtol=0)
        return
    for record, before, after in zip(records, logits["zero_shot"], logits["adapted"], strict=True):
        answer = retriever(files[record["index"]])
        compare(answer, record, before, after, atol=1e-4)
        assert answer.labels == texts and answer.label == texts[record["adapted_top10"][0]]


@pytest.mark.parametrize("flags", [[], ["--tune-embeddings"]])
def test_texts_find_the_images_that_they_find_on_the_command_line(retrieve, listed, flags):
    results = retrieve(*FLAGS, "--direction", "t2i", "--limit", 3, *flags)
    files, texts = listed
    retriever = Retriever(images=files, **SETTINGS, tune_embeddings=bool(flags))
    logits, records = results.logits(), results.records()
    for record, before, after in zip(records, logits["zero_shot"], logits["adapted"], strict=True):
        answer = retriever(texts[record["index"]])
        compare(answer, record, before, after, atol=1e-4)
        assert answer.labels == [str(file) for file in files]
        assert answer.zero_shot_label == str(files[record["zero_shot_top10"][0]])


def test_a_picture_may_be_a_file_an_image_or_a_tensor(listed):
    file, retriever = listed[0][0], Retriever(texts=FEW, **MODELS)
    with Image.open(file) as image:
        forms = [file, str(file), image.convert("RGB"), pil_to_tensor(image.convert("RGB"))]
    answers = [retriever(form).adapted for form in [*forms, forms[-1] / 255.0]]
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    gallery = Retriever(images=[file, forms[2], forms[3]], **MODELS)
    answer = gallery(FEW[0])
    assert answer.labels == [str(file), 1, 2] and answer.zero_shot.tolist() == pytest.approx([1 / 3] * 3)


def test_an_answer_holds_distributions_and_whole_rankings():
    answer = Retriever(texts=FEW, **MODELS, lr=1e-2)(picture())
    for probabilities, ranking in (
        (answer.zero_shot, answer.zero_shot_ranking),
        (answer.adapted, answer.ranking),
    ):
        assert probabilities.sum().item() == pytest.approx(1) and sorted(ranking) == [0, 1, 2]
        assert probabilities[ranking].tolist() == sorted(probabilities.tolist(), reverse=True)
    assert not torch.equal(answer.zero_shot, answer.adapted) and len(answer.trace) == 3


def test_zero_shot_answers_take_no_step_and_ask_no_reward():
    answer = Retriever(texts=FEW, student="demo-student", reward=["nothing"], method="zeroshot")(picture())
    assert answer.trace == [] and torch.equal(answer.zero_shot, answer.adapted)


def test_an_episode_that_is_given_up_is_told():
    answer = Retriever(texts=FEW, **MODELS, lr=1e30)(picture())
    assert not answer.finite and torch.equal(answer.zero_shot, answer.adapted)


def test_each_query_starts_afresh_and_momentum_remembers():
    retriever = Retriever(texts=FEW, **MODELS, lr=1e-2)
    first = retriever(picture(0)).adapted
    retriever(picture(1))
    assert torch.equal(retriever(picture(0)).adapted, first)
    momentum = Retriever(texts=FEW, **MODELS, lr=1e-2, momentum=True, momentum_every=1, momentum_decay=0.1)
    assert torch.equal(momentum(picture(0)).adapted, first)
    again = momentum(picture(0))
    assert not torch.equal(again.adapted, first) and torch.equal(again.zero_shot, retriever(picture(0)).zero_shot)


def shares(retriever, other):
    """A retriever with the models of another: its policy tunes the same student."""
    same_student = Retriever.of(
        retriever.config, other.models, retriever.policy.gallery, retriever.rewards, retriever.labels
    )
    assert same_student.models.student is other.models.student
    return same_student


@pytest.mark.slow
@pytest.mark.parametrize("further", [{}, {"tune": "norm"}])
def test_retrievers_that_share_a_model_answer_as_those_of_fresh_models(further):
    pictures = [picture(seed) for seed in range(3)]
    make = {
        "images": lambda: Retriever(texts=FEW, **MODELS, lr=1e-2, **further),
        "texts": lambda: Retriever(images=pictures, **MODELS, lr=1e-2),
        "embeddings": lambda: Retriever(images=pictures, **MODELS, lr=1e-2, tune_embeddings=True),
    }
    queries = {"images": pictures[0], "texts": FEW[0], "embeddings": FEW[0]}
    fresh = {name: made()(queries[name]) for name, made in make.items()}
    owner = make["images"]()
    model = owner.models.student.model
    before, modules = copied(model), list(model.modules())
    sharing = {"images": owner} | {name: shares(make[name](), owner) for name in ("texts", "embeddings")}
    for name in ("images", "texts", "embeddings", "images", "texts"):
        answer = sharing[name](queries[name])
        assert torch.equal(answer.adapted, fresh[name].adapted) and answer.trace == fresh[name].trace
        assert same(copied(model), before)
        assert all(layer is known for layer, known in zip(model.modules(), modules, strict=True))
        assert not any(p.requires_grad or p.grad is not None for p in model.parameters())
        assert not model.training


def test_texts_are_cleaned_where_that_is_asked_for_and_keep_their_labels():
    shouted = ['A DOG: "above" (a cat)!', *FEW[1:]]
    with pytest.raises(UserError, match="knows a few words only"):
        Retriever(texts=shouted, **MODELS)
    answer = Retriever(texts=shouted, **MODELS, clean_text=True)(picture())
    assert answer.labels == shouted
    assert torch.equal(answer.adapted, Retriever(texts=FEW, **MODELS)(picture()).adapted)
    images = [picture(seed) for seed in range(3)]
    plain = Retriever(images=images, **MODELS)(FEW[0])
    assert torch.equal(Retriever(images=images, **MODELS, clean_text=True)(shouted[0]).adapted, plain.adapted)


REFUSED = {
    "no gallery": ({}, "a Retriever has one gallery; give it texts or images"),
    "two galleries": ({"texts": FEW, "images": [1]}, "a Retriever has one gallery; give it texts or images"),
    "one text": ({"texts": FEW[0]}, "texts must be a list of texts, not "),
    "numbers": ({"texts": [1, 2, 3]}, "texts must be a list of texts, not 1"),
    "one image": ({"images": "photo.jpg"}, "images must be a list of images, not one alone"),
    "empty": ({"texts": []}, "the gallery is empty"),
    "direction": ({"texts": FEW, "direction": "t2i"}, "direction follows from the gallery"),
    "sample_k": ({"texts": FEW, "sample_k": 4}, "^sample_k 4 of i2t exceeds the 3 texts of the gallery"),
    "t2i_sample_k": ({"images": [1] * 3, "t2i_sample_k": 4}, "^sample_k 4 of t2i exceeds the 3 images of the gallery"),
    "unknown": ({"texts": FEW, "sample_kk": 4}, "unknown setting 'sample_kk'; did you mean 'sample_k'"),
    "data": ({"texts": FEW, "data": "x"}, "data is a setting of the command line"),
    "embeddings": ({"texts": FEW, "tune_embeddings": True}, "^tune_embeddings is for tune encoder"),
    "function": ({"images": [1] * 3, "reward": "py:a:b"}, "^reward py:a:b scores an image's texts; use direction i2t"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_before_a_model_is_loaded(case, monkeypatch):
    monkeypatch.setattr("rlcf.run.setup.load_clip", None)
    settings, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        Retriever(**settings)


def test_a_query_of_the_wrong_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match="a text looks for one of the images, not an object of type Tensor"):
        Retriever(images=[picture(seed) for seed in range(3)], **MODELS)(picture())
    with pytest.raises(UserError, match=r"nothing.png cannot be read as an image"):
        Retriever(texts=FEW, **MODELS)(tmp_path / "nothing.png")


LENGTH = "def prefer_long(images, texts):\n    return [None if 'owl' in text else len(text) / 100 for text in texts]\n"


def test_a_reward_of_ones_own_is_named_on_the_command_line_and_in_python(retrieve, listed, tmp_path, monkeypatch):
    (tmp_path / "retrieval_taste.py").write_text(LENGTH)
    monkeypatch.chdir(tmp_path)
    name = "py:retrieval_taste:prefer_long"
    results = retrieve(*FLAGS, "--direction", "i2t", "--limit", 2, "--reward", name, "--sample-k", TEXTS)
    files, texts = listed
    retriever = Retriever(texts=texts, **SETTINGS | {"reward": name, "sample_k": TEXTS})
    for record in results.records():
        answer = retriever(files[record["index"]])
        told = record["steps"][0]
        assert (answer.trace[0].answers, answer.trace[0].rewards) == (told["answers"], told["rewards"])
        assert answer.trace[0].loss == pytest.approx(told["loss"], abs=1e-5)
        (answers,), (rewards,) = told["answers"], told["rewards"]
        for place, reward in zip(answers, rewards, strict=True):
            own = None if "owl" in texts[place] else pytest.approx(len(texts[place]) / 100)
            assert reward == own
    assert "demo-reward" not in {file.stem for file in (results.folder / "features").iterdir()}
