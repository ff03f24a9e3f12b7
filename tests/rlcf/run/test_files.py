import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rlcf.errors import UserError
from rlcf.run.files import to_json, write_atomically, write_entries_atomically
from rlcf.run.tensor_files import is_whole, save_atomically, save_rows_atomically, writing_rows


@pytest.mark.parametrize("write", [write_atomically, save_atomically])
def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch, write):
    file = tmp_path / "file"
    file.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(UserError, match=r"^cannot write .*/file \(No space left on device\); make room there"):
        write(file, "new" if write is write_atomically else {"x": torch.ones(1)})
    assert file.read_text() == "old" and [found.name for found in tmp_path.iterdir()] == ["file"]


def test_written_files_are_whole_and_alone(tmp_path):
    write_atomically(tmp_path / "a.txt", "new\n")
    write_atomically(tmp_path / "a.txt", "newer\n")
    save_atomically(tmp_path / "b.safetensors", {"x": torch.arange(3)}, {"about": "it"})
    assert (tmp_path / "a.txt").read_text() == "newer\n"
    with safe_open(tmp_path / "b.safetensors", "pt") as file:
        assert file.get_tensor("x").tolist() == [0, 1, 2] and file.metadata() == {"about": "it"}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.txt", "b.safetensors"]


def test_rows_of_several_matrices_are_gathered_from_raw_files(tmp_path):
    raw = np.arange(12, dtype="<f4").reshape(3, 4)  # a row: two columns of "a", two of "b"
    raw.tofile(tmp_path / "rows.f32")
    (100 + raw).tofile(tmp_path / "more.f32")
    sources, rows = [tmp_path / "rows.f32", tmp_path / "more.f32"], np.array([[0, 2], [1, 1], [0, 0]])
    save_rows_atomically(tmp_path / "out.safetensors", {"a": 1, "b": 3}, sources, rows, {"about": "it"})
    found = load_file(tmp_path / "out.safetensors")
    assert found["a"].tolist() == [[8.0], [104.0], [0.0]]
    assert found["b"].tolist() == [[9.0, 10.0, 11.0], [105.0, 106.0, 107.0], [1.0, 2.0, 3.0]]
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"about": "it"}


def test_rows_are_written_in_any_order_and_a_file_that_was_changed_is_told_from_a_whole_one(tmp_path):
    file, matrix = tmp_path / "out.safetensors", torch.randn(5, 3)
    with writing_rows(file, "x", (5, 3), {"key": "k"}) as put:
        put(3, matrix[3:])
        put(0, matrix[:3])
        assert not file.exists()
    assert torch.equal(load_file(file)["x"], matrix)
    assert is_whole(file, "x", (5, 3), {"key": "k"}) and not is_whole(file, "x", (5, 3), {"key": "other"})
    assert not is_whole(file, "y", (5, 3), {"key": "k"})
    assert not is_whole(file, "x", (4, 3), {"key": "k"}) and not is_whole(file, "x", (5, 2), {"key": "k"})
    content = file.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"\7", content[:100], b""):
        file.write_bytes(damaged)
        assert not is_whole(file, "x", (5, 3), {"key": "k"})


@pytest.mark.parametrize("entries", [{}, {"a": "x"}, {"ä": ["one", 'tw"o'], "b\udc80": [], "c": {"d": 1}}])
def test_an_object_that_is_written_by_entries_is_the_one_that_is_written_whole(tmp_path, entries):
    write_entries_atomically(tmp_path / "a.json", iter(entries.items()))
    assert (tmp_path / "a.json").read_text() == to_json(entries)


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.txt", "text")
        save_atomically(tmp_path / "b.safetensors", {"x": torch.ones(1)})
        (tmp_path / ".c.txt.tmp").touch(mode=0o600)  # of a process that was killed
        write_atomically(tmp_path / "c.txt", "text")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o640}
