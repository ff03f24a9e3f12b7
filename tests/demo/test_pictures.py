"""The demo's pictures: which examples they show, and that their texts fit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from demo import pictures, show
from demo.pictures import balanced, choose_examples
from tests.tools import write_picture

RUN = "classification/anchored-mean"
NAMES = [f"class {letter}" for letter in "abcdefghijkl"]


@pytest.fixture
def demo(tmp_path):
    """Writes a demo folder whose images of class `label` were answered as told: (label, zero-shot, adapted)."""

    def write(answers, rewards=(1.5, 1.2, 0.9, 0.8, 0.7)):
        folder = tmp_path / RUN / "folder-fog"
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / RUN / "results.json").write_text(json.dumps({"datasets": {"folder:fog": {}}}))
        (folder / "classnames.txt").write_text("\n".join(NAMES))
        lines = []
        for number, (label, before, after) in enumerate(answers):
            write_picture(tmp_path / "single" / "fog" / f"{number}.png", number)
            step = {"answers": [[before, 9, 10, 11, after]], "rewards": [list(rewards)]}
            record = {"id": f"{number}.png", "label": label, "zero_shot": before, "adapted": after, "steps": [step]}
            lines.append(json.dumps(record | {"zero_shot_confidence": 0.5, "adapted_confidence": 0.75}))
        (folder / "records.jsonl").write_text("\n".join(lines))
        return tmp_path

    return write


def test_eight_examples_of_different_classes_are_shown_and_the_spoilt_ones_are_last(demo):
    right = [(label, (label + 1) % 9, label) for label in (0, 0, 1, 1, 2, 3, 4, 5, 6, 7)]
    spoilt = [(2, 2, 3), (2, 2, 4), (8, 8, 1), (5, 5, 5)]
    chosen = [record for _, record in choose_examples(demo([*right, *spoilt]) / RUN)]
    assert [record["label"] for record in chosen] == [0, 1, 3, 4, 5, 6, 2, 8]
    assert [record["adapted"] == record["label"] for record in chosen] == [True] * 6 + [False] * 2


def test_where_nothing_was_spoilt_there_are_eight_that_were_put_right(demo):
    chosen = choose_examples(demo([(label, 9, label) for label in range(9)]) / RUN)
    assert [record["label"] for _, record in chosen] == list(range(8))


def test_the_answer_that_won_is_among_the_rewards_that_are_drawn(demo):
    (_, record), *_ = choose_examples(demo([(3, 9, 3)]) / RUN)
    assert [answer for _, answer in pictures._best_rewards(record)][-1] == 3 and len(
        pictures._best_rewards(record)
    ) == 4


def test_the_picture_is_four_cards_wide(demo, tmp_path):
    folder = demo([(label, 9, label) for label in range(8)])
    assert show.draw(folder, "classification") == f"picture: {folder / 'classification.png'}\n"
    assert Image.open(folder / "classification.png").size[0] == 4 * pictures.WIDTH


@given(st.lists(st.sampled_from(["a", "of", "tiger", "strawberry", "background"]), min_size=1, max_size=20))
def test_a_text_has_as_few_lines_as_it_takes_each_as_short_as_that_allows(words):
    font, width = ImageFont.load_default(17), 200
    lines = balanced(" ".join(words), font, width)
    assert " ".join(lines) == " ".join(words)
    assert all(font.getlength(line) <= width for line in lines)
    assert len(lines) == len(pictures._lines(" ".join(words), font, width))
    longest = max(font.getlength(line) for line in lines)
    assert (
        len(lines) == 1
        or len(pictures._lines(" ".join(words), font, longest - 1)) > len(lines)
        or longest <= max(font.getlength(word) for word in words)
    )
