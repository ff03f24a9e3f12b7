from types import SimpleNamespace

import open_clip
import pytest
import torch
from torch import nn

from rlcf.clip.prompted_text import prompt_classes, prompt_text
from rlcf.clip.text_tower import TextTower, word_tokens
from rlcf.errors import UserError
from tests.tools import SHORT_TEXT, SIGLIP_TEXT, build_clip, word_tokenizer

CPU = torch.device("cpu")
NAMES = ["dog", "sea lion", "very old sailing ship"]
CASES = ["clip", "custom", "siglip", "eos", "causal-last", "no-projection"]


@pytest.fixture(scope="module", params=CASES)
def case(request, vit):
    """A model and its tokenizer, of every kind of text tower; `specials` start and end tokens."""
    if request.param == "clip":
        return SimpleNamespace(model=vit, tokenizer=open_clip.SimpleTokenizer(), short=True, specials=2)
    text, short, tokenizer = {
        "custom": (SHORT_TEXT, True, word_tokenizer(end=99, padding=0)),
        "siglip": (SIGLIP_TEXT, False, word_tokenizer()),
        "eos": (SHORT_TEXT | {"pool_type": "eos", "eos_id": 1}, True, word_tokenizer(padding=0)),
        "causal-last": (SHORT_TEXT | {"pool_type": "last"}, False, word_tokenizer()),
        "no-projection": (SHORT_TEXT | {"proj_type": "none"}, True, word_tokenizer(end=99, padding=0)),
    }[request.param]
    model = build_clip(open_clip.CustomTextCLIP, text=text)
    return SimpleNamespace(model=model, tokenizer=tokenizer, short=short, specials=1)


def layout(case, names=NAMES, n_ctx=4, position="end"):
    return prompt_classes(TextTower(case.model), case.tokenizer, names, n_ctx, position)


def context_of(case, words):
    return TextTower(case.model).embed(torch.tensor(word_tokens(case.tokenizer, words))).detach().clone()


def test_embedded_tokens_have_the_features_of_encode_text(case):
    tokens, tower = case.tokenizer(["a photo of a big dog.", "the cat"]), TextTower(case.model)
    features = tower(tower.embed(tokens), tokens)
    torch.testing.assert_close(features, case.model.encode_text(tokens), atol=1e-5, rtol=1e-5)
    assert (features[0] - features[1]).abs().max() > 0.1


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("start", ["a photo of a", "photo of the"])
def test_prompts_have_the_features_of_the_same_words(case, position, start):
    context = context_of(case, start)
    features = layout(case, n_ctx=len(context), position=position)(context)
    expected = case.model.encode_text(case.tokenizer([prompt_text(start, name, position) for name in NAMES]))
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_a_class_name_that_holds_the_context_words_is_no_context(case):
    context = context_of(case, "a photo of a")
    features = layout(case, ["a dog and the cat"])(context)
    expected = case.model.encode_text(case.tokenizer(["a photo of a a dog and the cat."]))
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)


def test_causal_prompts_end_with_the_longest_and_others_keep_the_whole_context(case):
    full, prompts = case.tokenizer([""]).shape[1], layout(case)
    start = case.tokenizer is not None and isinstance(case.tokenizer, open_clip.SimpleTokenizer)
    longest = start + 4 + len(["very", "old", "sailing", "ship", "."]) + 1
    assert prompts.tokens.shape[1] == prompts.frozen.shape[1] == (longest if case.short else full)


def test_the_shortened_sequence_has_the_features_of_the_full_one(case):
    tokens, tower = case.tokenizer(["a photo of a big dog.", "the cat"]), TextTower(case.model)
    length = tower.needed_length(tokens)
    shortened = tower(tower.embed(tokens[:, :length]), tokens[:, :length])
    torch.testing.assert_close(shortened, case.model.encode_text(tokens), atol=1e-5, rtol=1e-5)


PACKED = {"clip": True, "custom": True, "siglip": False, "eos": True, "causal-last": True, "no-projection": True}


def test_causal_towers_share_the_start_and_others_read_each_prompt_on_its_own(case, request):
    assert layout(case).packed == PACKED[request.node.callspec.params["case"]]


def test_towers_whose_blocks_are_not_clips_read_each_prompt_on_its_own():
    text = SHORT_TEXT | {"qk_norm": True}
    model = build_clip(open_clip.CustomTextCLIP, text=text)
    prompts = prompt_classes(TextTower(model), word_tokenizer(end=99, padding=0), NAMES, 4, "end")
    assert prompts.tower.causal and not prompts.packed
    context = TextTower(model).embed(torch.tensor([3, 7, 6, 3]))
    expected = model.encode_text(word_tokenizer(end=99, padding=0)([prompt_text("a photo of a", n) for n in NAMES]))
    torch.testing.assert_close(prompts(context), expected, atol=1e-5, rtol=1e-5)


MANY = ["dog", "very old sailing ship", "cat", "sea lion", "the big bird and the dog", "bird", "old cat"]


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("names", [MANY, MANY[:1], ["cat", "dog"]])
@pytest.mark.parametrize("case", [kind for kind in CASES if PACKED[kind]], indirect=True)
def test_packed_prompts_have_the_features_and_gradients_of_padded_ones(case, names, position):
    prompts, context = layout(case, names, position=position), torch.randn(4, TextTower(case.model).width)
    found = []
    for forward in (prompts, lambda context: prompts._each(context[None])):
        leaf = context.clone().requires_grad_(True)
        features = forward(leaf)
        found.append((features, *torch.autograd.grad(features.square().sum(), leaf)))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_packed_prompts_hold_the_start_once_and_no_padding(vit):
    prompts = prompt_classes(TextTower(vit), open_clip.SimpleTokenizer(), NAMES, 4, "end")
    own = [1 + 1 + 1, 2 + 1 + 1, 4 + 1 + 1]  # words, full stop, end of text
    assert prompts.layout.shared == 1 + 4 and prompts.n_tokens == 5 + sum(own)
    front = prompt_classes(TextTower(vit), open_clip.SimpleTokenizer(), NAMES, 4, "front")
    assert front.layout.shared == 1 and front.n_tokens == 1 + sum(own) + 3 * 4


def test_contexts_of_several_samples_have_the_features_of_each(case):
    prompts, contexts = layout(case), torch.randn(3, 4, TextTower(case.model).width)
    together = prompts(contexts)
    assert together.shape == (3, len(NAMES), *prompts(contexts[0]).shape[1:])
    torch.testing.assert_close(together, torch.stack([prompts(c) for c in contexts]), atol=1e-5, rtol=1e-5)


def test_some_of_the_classes_have_the_features_they_have_among_all(case):
    prompts, context = layout(case, MANY), context_of(case, "a photo of a")
    torch.testing.assert_close(prompts[2:5](context), prompts(context)[2:5], atol=1e-5, rtol=1e-5)
    assert len(prompts[2:5]) == 3


def test_every_context_vector_gets_a_gradient_and_changes_every_class(case):
    prompts, context = layout(case), context_of(case, "a photo of a").requires_grad_()
    features = prompts(context)
    for row in features:
        (gradient,) = torch.autograd.grad(row[0], context, retain_graph=True)
        assert bool((gradient.abs().amax(dim=-1) > 1e-4).all())


def test_the_frozen_part_has_no_graph_and_its_context_slots_do_not_matter(case):
    prompts, context = layout(case), context_of(case, "a photo of a")
    features = prompts(context)
    assert not prompts.frozen.requires_grad
    prompts.frozen[prompts.slots >= 0] = torch.nan
    assert torch.equal(prompts(context), features)


def test_context_slots_are_numbered_in_reading_order(case):
    for position in ("end", "middle", "front"):
        slots = layout(case, position=position).slots
        assert all(row[row >= 0].tolist() == [0, 1, 2, 3] for row in slots)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_context_longer_than_the_tower_is_told_with_the_class(case, position):
    with pytest.raises(UserError, match=r"80 context tokens and the class name 'sea lion' exceed (16|77) tokens"):
        layout(case, ["sea lion"], n_ctx=80, position=position)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_class_name_that_would_be_cut_is_told(case, position):
    with pytest.raises(UserError, match=r"class name '.*old.*' exceed (16|77) tokens"):
        layout(case, ["dog", " ".join(["old"] * 74)], position=position)


def test_a_prompt_that_fills_the_context_exactly_fits(case):
    full = case.tokenizer([""]).shape[1]
    name = " ".join(["old"] * (full - case.specials - 4 - 1))
    context = context_of(case, "a photo of a")
    expected = case.model.encode_text(case.tokenizer([f"a photo of a {name}."]))
    torch.testing.assert_close(layout(case, [name])(context), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_a_prompt_that_lacks_room_for_one_token_is_told(case, position):
    full = case.tokenizer([""]).shape[1]
    name = " ".join(["old"] * (full - case.specials - 4))
    with pytest.raises(UserError, match=f"the class name '{name}' exceed {full} tokens"):
        layout(case, ["dog", name], position=position)


@pytest.mark.parametrize(
    ("position", "words", "expected"),
    [
        ("end", "a photo of a", "a photo of a tench."),
        ("middle", "a photo of a", "a photo tench of a."),
        ("middle", "photo of the", "photo tench of the."),
        ("front", "a photo of a", "tench a photo of a."),
        ("end", "", "tench."),
    ],
)
def test_the_class_name_stands_where_the_position_says(position, words, expected):
    assert prompt_text(words, "tench", position) == expected


def test_word_tokens_leave_out_start_end_and_padding(words):
    assert word_tokens(open_clip.SimpleTokenizer(), "a photo of a") == [320, 1125, 539, 320]
    assert word_tokens(words, "a photo of a") == [3, 7, 6, 3]


def test_words_are_cleaned_as_the_tokenizer_cleans_them():
    tokenizer = word_tokenizer()
    tokenizer.clean_fn = lambda text: text.lower().replace(".", "")
    assert word_tokens(tokenizer, "A photo of a.") == [3, 7, 6, 3]


def test_the_width_of_a_tower_is_its_embeddings(case):
    assert TextTower(case.model).width == 64


def test_the_end_of_text_is_where_its_id_stands_first(words):
    tower = TextTower(build_clip(open_clip.CustomTextCLIP, text=SHORT_TEXT | {"pool_type": "eos", "eos_id": 1}))
    assert tower.pooled_position(words(["a dog", "the very old cat"])).tolist() == [2, 4]
    assert tower.needed_length(words(["a dog", "the very old cat"])) == 5


def test_towers_without_token_embeddings_are_refused():
    with pytest.raises(TypeError, match="Linear cannot be driven by embeddings"):
        TextTower(SimpleNamespace(text=nn.Linear(2, 2)))


def test_towers_that_append_a_class_token_are_refused():
    with pytest.raises(TypeError, match="cannot be driven by embeddings"):
        TextTower(build_clip(open_clip.CustomTextCLIP, text=SHORT_TEXT | {"embed_cls": True}))


@pytest.mark.parametrize(("name", "value"), [("use_pad_mask", True), ("pool_type", "none")])
def test_towers_that_mask_their_padding_or_do_not_pool_are_refused(name, value):
    model = build_clip(open_clip.CustomTextCLIP, text=SIGLIP_TEXT)
    setattr(model.text, name, value)
    with pytest.raises(TypeError, match="masks its padding or does not pool"):
        TextTower(model)
