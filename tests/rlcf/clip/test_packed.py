import inspect
import re

import open_clip
import pytest
import torch

from rlcf.clip.packed import Packed
from rlcf.clip.prompted_text import prompt_classes
from rlcf.clip.text_tower import TextTower

WORDS = {49406: "[", 49407: "]", 0: "_"}


def lay_out(vit, *names):
    return prompt_classes(TextTower(vit), open_clip.SimpleTokenizer(), names, 4, "end")


@pytest.fixture
def cat_and_sea_lion(vit):
    """The two prompts that the docstring of `Packed` draws."""
    return lay_out(vit, "cat", "sea lion")


def drawn(label):
    """The entries of the drawing's lines that begin with the label, each line without its own number."""
    lines = inspect.getdoc(Packed).splitlines()
    words = [line.split() for line in lines if re.match(rf" +{label}( +\d)? {{3,}}\S", line)]
    return [row[len(label.split()) :] for row in words]


def numbers(label, numbered=False):
    rows = [[int(entry) for entry in row] for row in drawn(label)]
    assert not numbered or [row[0] for row in rows] == list(range(len(rows)))
    return [row[1:] for row in rows] if numbered else rows[0]


def words(prompts, rows, columns):
    """The drawing's word for each token of the grid."""
    cells = zip(prompts.tokens[rows, columns].tolist(), prompts.slots[rows, columns].tolist(), strict=True)
    decode = open_clip.SimpleTokenizer().decode
    return [f"v{slot}" if slot >= 0 else WORDS.get(token) or decode([token]).strip() for token, slot in cells]


def test_the_drawing_shows_the_grid_of_the_prompts(cat_and_sea_lion):
    tokens = cat_and_sea_lion.tokens
    columns = torch.arange(tokens.shape[1])
    assert drawn("prompt") == [[str(row), *words(cat_and_sea_lion, row, columns)] for row in range(len(tokens))]
    assert numbers("column") == columns.tolist()
    assert f"grid of C = {len(tokens)} rows and L = {tokens.shape[1]} columns" in inspect.getdoc(Packed)


def test_the_drawing_shows_the_packed_row(cat_and_sea_lion):
    layout, text = cat_and_sea_lion.layout, inspect.getdoc(Packed)
    assert drawn("token") == [words(cat_and_sea_lion, layout.rows, layout.columns)]
    assert numbers("place") == list(range(len(layout.rows)))
    assert numbers("rows") == layout.rows.tolist() and numbers("columns") == layout.columns.tolist()
    assert numbers("ends") == layout.ends.tolist()
    assert f"first P = {layout.shared} columns" in text and f"T = {len(layout.rows)} places" in text


def test_the_drawing_shows_the_group_with_its_keys_and_masks(cat_and_sea_lion):
    (group,) = cat_and_sea_lion.layout.groups
    assert numbers("keys", numbered=True) == group.keys.tolist()
    assert numbers("real", numbered=True) == group.real.int().tolist()
    assert numbers("query", numbered=True) == group.may_look.int().tolist()
    assert f"padded to S = {len(group.may_look)}" in inspect.getdoc(Packed)


def test_the_drawing_shows_which_results_are_whose(cat_and_sea_lion):
    layout = cat_and_sea_lion.layout
    (group,) = layout.groups
    places, real = (part[:, layout.shared :].flatten() for part in (group.keys, group.real))
    tokens = words(cat_and_sea_lion, layout.rows[places], layout.columns[places])
    assert numbers("result") == list(range(len(places)))
    assert drawn("of token") == [[token if kept else "_" for token, kept in zip(tokens, real, strict=True)]]
    assert numbers("unpad") == layout.unpad.tolist() and numbers("ungroup") == layout.ungroup.tolist()


def test_results_of_several_groups_come_back_in_the_order_of_the_prompts(vit):
    names = ["very old sailing ship", "cat", "the big bird and the dog", "sea lion", "dog"]
    layout = lay_out(vit, *names).layout
    assert [group.prompts.tolist() for group in layout.groups] == [[1, 3, 4], [0, 2]]
    places = torch.cat([group.keys[:, layout.shared :].flatten() for group in layout.groups])
    assert places[layout.unpad].tolist() == list(range(layout.shared, len(layout.rows)))
    assert torch.cat([group.prompts for group in layout.groups])[layout.ungroup].tolist() == list(range(len(names)))
