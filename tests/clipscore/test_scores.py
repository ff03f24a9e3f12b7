import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clipscore.captions import match_captions
from clipscore.clip_scores import clip_scores, ref_clip_score
from clipscore.scores import reference_scores
from rlcf.clip.loading import load_clip

from .conftest import CANDIDATES, REFERENCES

PAIRS = [REFERENCES[name] for name in CANDIDATES]


@pytest.fixture(scope="module")
def clip(clip_file):
    return load_clip(str(clip_file))


def test_a_caption_equal_to_a_reference_has_full_marks():
    scores = reference_scores([group[0] for group in PAIRS], PAIRS, with_java=False)
    assert [scores[f"BLEU-{n}"][0] for n in range(1, 3)] == pytest.approx([1, 1])
    assert scores["ROUGE-L"][1] == pytest.approx([1] * len(PAIRS))


def test_a_caption_without_a_common_word_has_no_marks():
    scores = reference_scores(["x y z q v"] * len(PAIRS), PAIRS, with_java=False)
    assert all(whole == pytest.approx(0, abs=1e-6) for whole, _ in scores.values())


def test_references_without_a_word_give_no_marks():
    scores = reference_scores(["a dog", "a cat"], [["?"], ["...", "!"]], with_java=False)
    assert scores["CIDEr"] == (0.0, [0.0, 0.0])
    assert all(whole == pytest.approx(0, abs=1e-6) for whole, _ in scores.values())


def test_scores_worked_out_by_hand():
    scores = reference_scores(["a dog runs", "a cat"], [["a dog sits here"], ["a cat"]], with_java=False)
    # 4 of 5 words and 2 of 3 pairs are in the references, which have 6 words: brevity exp(1 - 6/5).
    brevity = torch.exp(torch.tensor(-0.2)).item()
    assert scores["BLEU-1"][0] == pytest.approx(4 / 5 * brevity, abs=1e-6)
    assert scores["BLEU-2"][0] == pytest.approx((4 / 5 * 2 / 3) ** 0.5 * brevity, abs=1e-6)
    # Longest common subsequence 2: precision 2/3, recall 2/4, beta 1.2.
    assert scores["ROUGE-L"][1] == pytest.approx([2.44 * (2 / 3) * (2 / 4) / (2 / 4 + 1.44 * 2 / 3), 1])
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


def test_case_and_final_full_stops_do_not_count():
    plain = reference_scores(["a dog runs", "a cat"], [["a dog"], ["the cat"]], with_java=False)
    assert reference_scores(["A dog runs.", "a cat ."], [["A DOG!"], ["The cat"]], with_java=False) == plain


def test_a_caption_of_punctuation_alone_scores_nothing():
    scores = reference_scores(["...", "a cat"], [["a dog"], ["a cat"]], with_java=False)
    assert all(each[0] == pytest.approx(0, abs=1e-6) for _, each in scores.values())


def test_the_order_of_references_does_not_matter(clip, images):
    turned = {name: group[::-1] for name, group in REFERENCES.items()}
    scores = [clip_scores(match_captions(CANDIDATES, images, refs), clip, workers=0) for refs in (REFERENCES, turned)]
    assert scores[0]["RefCLIPScore"][1] == pytest.approx(scores[1]["RefCLIPScore"][1], abs=1e-6)


def test_the_prefix_stands_before_candidates_and_references(clip, images):
    """With no prefix and the prefixed captions the scores are the same."""
    there = (
        {name: f"so {text}" for name, text in CANDIDATES.items()},
        {k: [f"so {r}" for r in v] for k, v in REFERENCES.items()},
    )
    with_prefix = clip_scores(match_captions(CANDIDATES, images, REFERENCES), clip, "so ", workers=0)
    without = clip_scores(match_captions(there[0], images, there[1]), clip, "", workers=0)
    assert with_prefix == without


units = st.lists(st.floats(-1, 1, allow_nan=False), min_size=3, max_size=3).map(
    lambda row: F.normalize(torch.tensor(row) + 1e-3, dim=-1)
)


@given(st.floats(0, 2.5), units, st.lists(units, min_size=1, max_size=4))
def test_refclipscore_lies_between_clipscore_and_the_best_reference_similarity(score, text, group):
    best = max(0.0, max((text @ reference).item() for reference in group))
    found = ref_clip_score(torch.tensor([score]), text[None], [torch.stack(group)]).item()
    assert min(score, best) - 1e-5 <= found <= max(score, best) + 1e-5


def test_refclipscore_is_nought_where_clipscore_or_every_reference_similarity_is():
    text, away = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[-1.0, 0.0]])
    groups = [text[:1], away, away]
    assert ref_clip_score(torch.tensor([0.0, 0.7, 0.0]), text, groups).tolist() == [0, 0, 0]
