"""BLIP's image-text matching head as a reward: its scores, and what learns from them. The model is tiny and random."""

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BlipConfig,
    BlipForImageTextRetrieval,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from caption import main as caption
from classification import Classifier
from demo.world import write_classification, write_retrieval
from examples import blip_reward
from rlcf.errors import UserError
from tests.tools import Results, run_script

REWARD = "py:examples.blip_reward:itm"
WORDS = "a photo of . cat dog horse above below ##s"
TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = TEXT | {"image_size": 32, "patch_size": 8}


def word_pieces():
    """A BERT tokenizer of a few words; all others are unknown."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    ids = {word: number for number, word in enumerate([*special, *WORDS.split()])}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names)


@pytest.fixture(scope="module")
def blip(tmp_path_factory):
    """The folder of a model whose scores vary with the image and with the text."""
    folder, tokenizer = tmp_path_factory.mktemp("blip"), word_pieces()
    text = TEXT | {"vocab_size": len(tokenizer), "max_position_embeddings": 32, "pad_token_id": 0}
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def chosen(blip, monkeypatch):
    """The example loads that model, and forgets it afterwards."""
    monkeypatch.setenv("BLIP_MODEL", str(blip))
    blip_reward.load.cache_clear()
    yield
    blip_reward.load.cache_clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """single/<class name>/0.png of three classes, and blur.json with blur/0.png and blur/1.png."""
    folder = tmp_path_factory.mktemp("data")
    write_classification(folder / "all", "clean", 1, seed=3)
    for name in ("cat", "dog", "horse"):
        (folder / "single").mkdir(exist_ok=True)
        (folder / "all" / name).rename(folder / "single" / name)
    write_retrieval(folder, "blur", 2, seed=3)
    return folder


def noise(seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def test_scores_are_those_of_transformers_own_forward_pass(blip):
    one, two = noise(1), noise(2)
    images, texts = [one, one, two], ["a photo of a cat.", "dogs above", "a photo of a cat."]
    model, processor = BlipForImageTextRetrieval.from_pretrained(blip).eval(), BlipProcessor.from_pretrained(blip)
    with torch.no_grad():
        pairs = [processor(images=i, text=t, return_tensors="pt") for i, t in zip(images, texts, strict=True)]
        expected = [model(**pair).itm_score.softmax(dim=-1)[0, 1].item() for pair in pairs]
    scores = blip_reward.itm(images, texts)
    assert scores == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 3) for score in scores}) == 3 and all(0 < score < 1 for score in scores)


def test_an_image_that_repeats_is_encoded_once():
    encoded = []
    model, _ = blip_reward.load()
    model.vision_model.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
    one, two = noise(1), noise(2)
    blip_reward.itm([one, two, one, two, one], ["a cat"] * 5)
    assert encoded == [2]


def test_a_model_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("BLIP_MODEL", str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"cannot load .*gone as BLIP; let BLIP_MODEL name"):
        blip_reward.itm([noise(1)], ["a cat"])


def test_a_classifier_learns_from_its_scores(data):
    names = ["cat", "dog", "horse"]
    settings = {"student": "demo-student", "views": 6, "selection": 0.5, "sample_k": 2, "lr": 1e-4, "steps": 1}
    classifier = Classifier(names, reward=[blip_reward.itm], batchnorm="frozen", **settings)
    image = data / "single" / "cat" / "0.png"
    answer = classifier(image)
    (step,) = answer.trace
    views = classifier.views(Image.open(image).convert("RGB"), 0)
    for number, answers, rewards in zip(step.views, step.answers, step.rewards, strict=True):
        view = Image.fromarray(views[number].permute(1, 2, 0).numpy())
        texts = [f"a photo of a {names[place]}." for place in answers]
        assert rewards == pytest.approx(blip_reward.itm([view, view], texts), abs=1e-6)
    assert not torch.equal(answer.zero_shot, answer.adapted)


def check_rewards(output):
    """Two samples of three steps learnt from probabilities of three answers, which differ."""
    steps = [step for record in Results(output).records() for step in record["steps"]]
    rewards = np.array([step["rewards"] for step in steps])
    assert len(steps) == 2 * 3 and rewards.shape[-1] == 3
    assert (rewards > 0).all() and (rewards < 1).all() and (rewards.std(axis=-1) > 0).any()


@pytest.mark.slow
def test_classification_takes_it_by_its_import_path_from_any_folder(data, blip, tmp_path):
    flags = ["--student", "demo-student", "--reward", REWARD, "--device", "cpu", "--workers", 0, "--limit", 2]
    flags += ["--datasets", "folder:single", "--views", 4, "--selection", 0.5, "--lr", 1e-4, "--batchnorm", "frozen"]
    flags += ["--data", data, "--output", tmp_path / "run"]
    done = run_script("classification/main.py", *flags, cwd=tmp_path, BLIP_MODEL=str(blip))
    assert done.returncode == 0, done.stderr
    check_rewards(tmp_path / "run")


@pytest.mark.slow
def test_captioning_takes_it_by_its_import_path(data, tmp_path):
    flags = ["--student", "demo-student", "--reward", REWARD, "--device", "cpu", "--workers", "0", "--lr", "1e-4"]
    flags += ["--datasets", "json:blur", "--checkpoint", "demo-clipcap", "--language-model", "demo-lm"]
    caption.main([*flags, "--data", str(data), "--output", str(tmp_path / "run")])
    check_rewards(tmp_path / "run")


@pytest.mark.slow
def test_the_example_prints_the_rewards_of_each_view(data, blip):
    flags = ("single/cat/0.png", "cat", "dog", "--student", "demo-student")
    done = run_script("examples/blip_reward.py", *flags, cwd=data, BLIP_MODEL=str(blip))
    assert done.returncode == 0, done.stderr
    *views, last = done.stdout.splitlines()
    assert len(views) == 6 and all(line.startswith("view ") and " cat 0." in line for line in views)
    assert last.startswith("zero-shot ")
