"""The context that prompt tuning starts from."""

import logging
from pathlib import Path

import pytest
import torch

from classification.clip_model import PromptPolicy
from classification.context import initial_context, read_coop
from rlcf.clip.text_tower import TextTower
from rlcf.errors import UserError

PROMPT = "a photo of a"


def test_words_start_the_context_from_their_embeddings(clip):
    student = clip("vit")
    context = initial_context(student, "words", 99, PROMPT, seed=0)
    ids = student.tokenizer.encode(PROMPT)
    assert torch.equal(context, student.model.token_embedding.weight[ids]) and context.shape == (4, 64)
    assert not context.requires_grad


def test_underscores_in_the_words_of_the_context_are_spaces(clip):
    student = clip("vit")
    contexts = [initial_context(student, "words", 4, prompt, 0) for prompt in ("a_photo_of_a", PROMPT)]
    assert torch.equal(*contexts)


def test_a_random_context_is_decided_by_the_seed(clip):
    student = clip("vit")
    first, again, other = (initial_context(student, "random", 16, PROMPT, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (16, 64) and 0.015 < first.std() < 0.025 and abs(first.mean()) < 0.005


@pytest.mark.parametrize("prompt", ["", "   "])
def test_a_context_without_words_is_told(clip, prompt):
    with pytest.raises(UserError, match=r"--prompt has no words to start the context from; use --context random"):
        initial_context(clip("vit"), "words", 4, prompt, 0)


COOP = {"ctx": torch.randn(4, 64), "token_prefix": torch.zeros(5, 1, 64), "token_suffix": torch.zeros(5, 72, 64)}


@pytest.mark.parametrize(
    "place",
    [
        "ctx.pth.tar",
        "prompt_learner/model.pth.tar-50",
        "prompt_learner/model.pth.tar-7",
        "model.pth.tar-200",
        "prompt_learner/model-best.pth.tar",
        "model-best.pth.tar",
    ],
)
def test_the_context_of_a_coop_checkpoint_is_read_from_its_file_and_its_folder(clip, tmp_path, place):
    file = tmp_path / "coop" / place
    file.parent.mkdir(parents=True)
    torch.save({"state_dict": COOP, "epoch": 50, "optimizer": {}, "val_result": None}, file)
    given = [file] if place == "ctx.pth.tar" else [file, tmp_path / "coop"]
    for path in given:
        context = initial_context(clip("vit"), str(path), 99, PROMPT, 0)
        assert torch.equal(context, COOP["ctx"]) and context.dtype == torch.float32


def test_a_coop_context_in_half_precision_or_of_other_length_is_read(tmp_path):
    torch.save({"ctx": torch.ones(16, 64).half()}, tmp_path / "c.pt")
    context = read_coop(tmp_path / "c.pt", 64)
    assert context.shape == (16, 64) and context.dtype == torch.float32


def test_a_coop_context_of_another_width_is_told_with_both(tmp_path):
    torch.save({"state_dict": {"ctx": torch.ones(4, 512)}}, tmp_path / "c.pt")
    with pytest.raises(UserError) as error:
        read_coop(tmp_path / "c.pt", 64)
    assert str(error.value).startswith(
        f"the CoOp context of {tmp_path / 'c.pt'} is 512 wide, the student's text tower 64"
    )


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}},
        {"state_dict": 3},
        {"ctx": [1.0]},
        [1],
        torch.ones(4, 64),
        {"state_dict": {"ctx": torch.ones(64)}},
    ],
)
def test_a_file_that_is_no_coop_checkpoint_is_told(tmp_path, content):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"c.pt is no CoOp checkpoint: it needs state_dict\['ctx'\] of shape"):
        read_coop(tmp_path / "c.pt", 64)


def test_a_folder_without_a_coop_checkpoint_and_a_missing_file_are_told(tmp_path):
    with pytest.raises(
        UserError, match=r"is no CoOp checkpoint folder; it needs prompt_learner/model.pth.tar-N, N the"
    ):
        read_coop(tmp_path, 64)
    with pytest.raises(UserError, match=r"gone.pt"):
        read_coop(tmp_path / "gone.pt", 64)


def test_a_text_tower_that_takes_no_embeddings_is_told(clip, monkeypatch):
    monkeypatch.setattr(TextTower, "__init__", lambda *_: (_ for _ in ()).throw(TypeError))
    student = clip("vit")
    with pytest.raises(UserError, match=r"cannot be driven by embeddings; use --tune image-encoder"):
        initial_context(student, "words", 4, PROMPT, 0)
    with pytest.raises(UserError, match=r"cannot be driven by embeddings; use --tune image-encoder"):
        PromptPolicy(student, ["dog"], COOP["ctx"])


def test_a_context_beside_its_trainers_state_is_read(tmp_path):
    """Dassl keeps its scheduler's state, which may hold objects."""
    parameters = [torch.nn.Parameter(COOP["ctx"])]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    state = {"epoch": 50, "optimizer": optimizer.state_dict(), "scheduler": {"successor": scheduler}}
    torch.save({"state_dict": COOP, **state}, tmp_path / "c.pt")
    assert torch.equal(read_coop(tmp_path / "c.pt", 64), COOP["ctx"])


def test_a_context_that_is_not_finite_is_told(tmp_path):
    torch.save({"state_dict": {"ctx": torch.full((4, 64), torch.inf)}}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"the weights ctx of .*c.pt are not finite"):
        read_coop(tmp_path / "c.pt", 64)


def test_of_several_epochs_the_last_is_read_and_the_best_only_where_there_is_none(tmp_path):
    for epoch in (5, 50, 9):
        (tmp_path / "prompt_learner").mkdir(exist_ok=True)
        torch.save({"ctx": torch.full((4, 64), float(epoch))}, tmp_path / "prompt_learner" / f"model.pth.tar-{epoch}")
    torch.save({"ctx": torch.zeros(4, 64)}, tmp_path / "prompt_learner" / "model-best.pth.tar")
    assert read_coop(tmp_path, 64)[0, 0] == read_coop(tmp_path / "prompt_learner", 64)[0, 0] == 50


COOP_CASES = Path(__file__).resolve().parents[1] / "cases" / "coop"


def test_the_trainers_state_beside_a_context_is_left_unread_and_named(caplog):
    caplog.set_level(logging.INFO, "rlcf")
    assert read_coop(COOP_CASES / "warm", 64).shape == (4, 64)
    assert "left unread: " in caplog.text and "torch.optim.lr_scheduler.CosineAnnealingLR" in caplog.text


def test_contexts_of_the_classes_own_are_called_so():
    with pytest.raises(UserError) as error:
        read_coop(COOP_CASES / "class-specific", 64)
    assert "model.pth.tar-50 holds class-specific contexts, 4 vectors for each of 3 classes (CSC True);" in str(
        error.value
    )
    assert str(error.value).endswith("give a CoOp checkpoint that was trained with CSC False")


def test_a_context_of_cocoop_is_called_so(tmp_path):
    torch.save({"state_dict": {"ctx": torch.ones(4, 8), "meta_net.linear1.weight": torch.ones(2)}}, tmp_path / "c.pt")
    with pytest.raises(UserError, match=r"c.pt is a checkpoint of CoCoOp, whose context changes with the image"):
        read_coop(tmp_path / "c.pt", 8)
