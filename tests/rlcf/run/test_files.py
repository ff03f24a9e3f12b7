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
from rlcf.run.files import write_atomically
from rlcf.run.tensor_files import save_atomically, save_rows_atomically


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
    places = [(tmp_path / "rows.f32", row) for row in (2, 0)]
    save_rows_atomically(tmp_path / "out.safetensors", {"a": 1, "b": 3}, places, {"about": "it"})
    found = load_file(tmp_path / "out.safetensors")
    assert found["a"].tolist() == [[8.0], [0.0]] and found["b"].tolist() == [[9.0, 10.0, 11.0], [1.0, 2.0, 3.0]]
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata() == {"about": "it"}


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
