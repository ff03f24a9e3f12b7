import pytest
import torch

from caption.generate import beam_search, nucleus_sampling
from caption.language_model import load_language_model


@pytest.fixture(params=("opt", "gpt2", "llama"))
def lm(request, lm_folder):
    return load_language_model(str(lm_folder(request.param)))


@pytest.fixture
def prefix(lm):
    return torch.randn(2, 4, lm.width, generator=torch.Generator().manual_seed(2))


def plain_beam_search(lm, prefix, beams, returned, max_new_tokens):
    """Without a cached prefix: transformers embeds and reads it for every beam."""
    bos = lm.model.get_input_embeddings()(torch.tensor([[lm.bos]]))
    sequences = lm.model.generate(
        inputs_embeds=torch.cat([prefix, bos], dim=1),
        attention_mask=torch.ones(1, prefix.shape[1] + 1),
        num_beams=beams,
        num_return_sequences=returned,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        min_new_tokens=1,
        eos_token_id=list(lm.stops),
        pad_token_id=lm.pad,
    )
    return [" ".join(text.split()) for text in lm.tokenizer.batch_decode(sequences, skip_special_tokens=True)]


def test_the_cached_prefix_gives_transformers_own_captions(lm, prefix):
    for one in prefix.split(1):
        found = beam_search(lm, one, beams=4, returned=3, max_new_tokens=8)
        assert found == [plain_beam_search(lm, one, 4, 3, 8)]
        assert len(found[0]) == 3


def test_several_prefixes_are_searched_each_on_its_own(lm, prefix):
    together = beam_search(lm, prefix, beams=3, returned=2, max_new_tokens=8)
    assert together == [beam_search(lm, one, 3, 2, 8)[0] for one in prefix.split(1)]


def test_draws_depend_on_their_seed_alone(lm, prefix):
    def draw(*seed):
        torch.rand(1)
        return nucleus_sampling(lm, prefix[:1], count=4, top_p=0.95, seed=seed, max_new_tokens=8)

    first = draw(0, 1, 2)
    assert first == draw(0, 1, 2) != draw(0, 1, 3)
    assert len(first) == 4 and len(set(first)) > 1


def test_drawing_leaves_the_global_generator_as_it_was(lm, prefix):
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    nucleus_sampling(lm, prefix[:1], count=2, top_p=0.9, seed=(1,), max_new_tokens=3)
    assert torch.equal(torch.rand(1), expected)


def test_a_tiny_nucleus_is_the_greedy_caption(lm, prefix):
    drawn = nucleus_sampling(lm, prefix[:1], count=3, top_p=1e-6, seed=(0,), max_new_tokens=6)
    assert drawn == [beam_search(lm, prefix[:1], beams=1, max_new_tokens=6)[0][0]] * 3


def test_a_caption_stops_at_the_newline(lm_folder):
    lm = load_language_model(str(lm_folder("gpt2")))
    with torch.no_grad():
        lm.model.lm_head.weight[lm.stops[0]] = 0  # in GPT-2 also the token's embedding
        lm.model.transformer.ln_f.bias.fill_(5.0)
        lm.model.lm_head.weight[lm.stops[0]] = 1.0
    (captions,) = beam_search(lm, torch.zeros(1, 2, lm.width), beams=1, max_new_tokens=30)
    assert "\n" not in captions[0] and len(lm.tokenizer(captions[0])["input_ids"]) <= 2
