import pytest
import torch

from retrieval.clip_model import ImagePolicy, TextPolicy
from rlcf.adapt.episode import Episodes
from rlcf.adapt.optimiser import AdamW
from tests.tools import copied, same

TEXTS = ["a dog above a cat", "a key below a car", "an owl to the left of a house"]


@pytest.fixture
def images():
    return torch.rand(4, 3, 64, 64)


@torch.no_grad()
def features(clip, images):
    return clip.encode_image(clip.prepare(images)), clip.encode_text(TEXTS)


def test_both_policies_start_at_the_zero_shot_logits(demo_clip, images):
    student = demo_clip()
    of_images, of_texts = features(student, images)
    expected = student.logit_scale * of_images @ of_texts.T
    i2t, t2i = ImagePolicy(student, of_texts), TextPolicy(demo_clip(), of_images)
    rows = torch.cat([i2t.zero_shot(i2t.encode(image)) for image in images.split(1)])
    columns = torch.cat([t2i.zero_shot(t2i.encode(text)) for text in TEXTS])
    assert torch.allclose(rows, expected, atol=1e-4) and torch.allclose(columns, expected.T, atol=1e-4)


@pytest.mark.parametrize("tune", ["encoder", "norm"])
@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_an_episode_changes_the_querys_tower_alone_and_puts_it_back(demo_clip, images, direction, tune):
    student = demo_clip()
    before, required = copied(student.model), [p.requires_grad for p in student.model.parameters()]
    of_images, of_texts = features(student, images)
    policy = ImagePolicy(student, of_texts, tune) if direction == "i2t" else TextPolicy(student, of_images, tune)
    sample = policy.encode(images[:1] if direction == "i2t" else TEXTS[0])
    episodes = Episodes(policy.tuned, AdamW(lr=1e-2), steps=2)
    moved = {}

    def answer():
        moved.update({k: not torch.equal(v, before[k]) for k, v in student.model.state_dict().items()})
        return policy.answer(sample)

    with policy:
        episodes.run(lambda step: policy.logits(sample).log_softmax(dim=-1)[0, 0], answer)
    changed = {name for name, changes in moved.items() if changes}
    assert changed and {name.startswith("visual.") for name in changed} == {direction == "i2t"}
    assert not changed & {"logit_scale", "token_embedding.weight"}
    if tune == "norm":
        assert all(".bn" in name or "ln_" in name or "downsample" in name for name in changed)
        assert len(changed) == len(policy.tuned)
    assert same(copied(student.model), before)
    assert [p.requires_grad for p in student.model.parameters()] == required
    assert all(p.grad is None for p in student.model.parameters())


def test_the_published_text_to_image_also_tunes_embeddings_and_scale(demo_clip, images):
    of_images, _ = features(demo_clip(), images)
    ours, published = (TextPolicy(demo_clip(), of_images, embeddings=both).tuned.keys() for both in (False, True))
    assert published - ours == {"token_embedding.weight", "logit_scale"} and not ours - published


def after_two_steps(policy, texts, lr=1e-2):
    """Logits of each text before and after its episode."""
    episodes = Episodes(policy.tuned, AdamW(lr=lr, weight_decay=0.1), steps=2)
    found = []
    for text in texts:
        tokens = policy.encode(text)
        found.append(policy.zero_shot(tokens))
        with policy, episodes.episode(policy.starts(tokens)) as episode:
            starting = policy.answer(tokens)
            loss = lambda step: -policy.logits(tokens).log_softmax(dim=-1)[0, 0]  # noqa: B023, E731
            found.append(episode.adapt(loss, lambda: policy.answer(tokens)))  # noqa: B023
        torch.testing.assert_close(starting, found[-2], atol=1e-5, rtol=0)
    return torch.cat(found)


def test_only_the_embeddings_that_occur_are_tuned_and_the_answers_are_those_of_the_whole_table(demo_clip, images):
    student = demo_clip()
    of_images, _ = features(student, images)
    table = student.model.token_embedding.weight
    rows = TextPolicy(student, of_images, embeddings=True)
    assert rows.tuned["token_embedding.weight"].shape == (student.model.context_length, table.shape[1])
    before = table.clone()
    texts = [*TEXTS[:2], "a dog and a dog"]
    few = after_two_steps(rows, texts)
    assert not table.requires_grad and torch.equal(table, before)
    whole = TextPolicy(student, of_images, embeddings=True, whole_table=True)
    assert whole.tuned["token_embedding.weight"] is table
    torch.testing.assert_close(few, after_two_steps(whole, texts), atol=1e-5, rtol=0)
    frozen = TextPolicy(student, of_images)
    assert (few - after_two_steps(frozen, texts)).abs().max() > 1e-3
    assert torch.equal(student.model.token_embedding.weight, before)


def test_the_stored_statistics_of_batchnorm_are_used_and_kept(demo_clip, images):
    student = demo_clip()
    _, of_texts = features(student, images)
    policy = ImagePolicy(student, of_texts)
    buffers = {name: value.clone() for name, value in student.model.named_buffers()}
    with policy:
        policy.logits(policy.encode(images[:1])).sum().backward()
    assert all(torch.equal(value, buffers[name]) for name, value in student.model.named_buffers())
