import io
import logging
import sys

import pytest
import torch
from tqdm import tqdm

from classification.main import main as classify
from clipscore.main import main as score
from rlcf.errors import UserError, run_main
from rlcf.terminal import VisibleFormatter, visible
from tests.tools import OPENAI_TEXT, VIT, build_clip, mistake, write_picture

HOSTILE = "a\x1b]0;owned\x07\x9b31m\r\n\u202eb\udce9"
"""A name that would set the terminal's title, its colour and its direction, and go back to the line's start."""
SHOWN = r"a\x1b]0;owned\x07\x9b31m\r\n\u202eb\udce9"


def test_control_characters_are_written_as_python_writes_them():
    assert visible(HOSTILE) == SHOWN
    assert visible("a\tb\n\x1b", kept="\t\n") == "a\tb\n\\x1b"


@pytest.mark.parametrize("text", ["plain", "é ü ß", "日本語", "👩\u200d🚀", "שלום", "a\\x1b"])
def test_other_texts_stay_as_they_are(text):
    assert visible(text) == text


def test_a_mistake_that_names_a_hostile_file_is_one_visible_line(capsys):
    def main():
        raise UserError(f"no file {HOSTILE}")

    assert mistake(main, capsys) == f"no file {SHOWN}"


def test_what_a_command_prints_is_visible_but_for_lines_and_tabs(capsys):
    def main():
        print("a\tb\n\x1b[2J\x9b")
        sys.stderr.write("\x1b[1m\r\n")
        for _ in tqdm(range(2), desc="\x1b[3m"):
            pass

    run_main(main)
    printed = capsys.readouterr()
    assert printed.out == "a\tb\n\\x1b[2J\\x9b\n"
    assert printed.err.startswith("\\x1b[1m\r\n") and "\\x1b[3m: 100%" in printed.err
    assert not any(control in printed.err for control in "\x1b\x9b")


def test_output_is_put_back_after_a_command(capsys):
    before = sys.stdout, sys.stderr
    run_main(lambda: None)
    assert (sys.stdout, sys.stderr) == before


def test_a_record_of_the_log_is_one_visible_line():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(VisibleFormatter("%(message)s"))
    handler.handle(logging.makeLogRecord({"msg": "skipped: %s", "args": (HOSTILE,)}))
    assert stream.getvalue() == f"skipped: {SHOWN}\n"


def test_a_real_command_shows_the_escapes_of_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rlcf-clipscore", HOSTILE, str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        run_main(score)
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and SHOWN in printed and printed.count("\n") == 1
    assert not any(control in printed for control in "\x1b\x07\x9b\u202e\r")


def test_the_log_of_a_real_run_shows_the_escapes_of_a_file_and_of_a_checkpoint(tmp_path, monkeypatch):
    """An image's name and the name of an object in the student's file would control the terminal."""
    names = "\x1b[31mclass", "\x1b]0;x\x07.png"
    for name in ("cat", "dog"):
        write_picture(tmp_path / "data" / name / "0.png")
    (tmp_path / "data" / "dog" / names[1]).write_bytes(b"torn")
    kind = type(names[0], (), {"__module__": __name__})
    monkeypatch.setitem(globals(), names[0], kind)
    weights = build_clip(vision=VIT, text=OPENAI_TEXT, quick_gelu=True).state_dict()
    weights |= {name: torch.tensor(32) for name in ("input_resolution", "context_length", "vocab_size")}  # OpenAI's
    torch.save({"state_dict": weights, "args": kind()}, tmp_path / "student.pt")
    flags = ["--data", str(tmp_path / "data"), "--datasets", "folder", "--output", str(tmp_path / "run")]
    settings = ["--method", "zeroshot", "--workers", "0", "--device", "cpu", "--skip-bad-images"]
    run_main(lambda: classify([*flags, *settings, "--student", str(tmp_path / "student.pt")]))
    log = (tmp_path / "run" / "log.txt").read_bytes().decode()
    assert f"left unread: {__name__}.\\x1b[31mclass" in log and "\\x1b]0;x\\x07.png" in log
    assert not any(control in log for control in "\x1b\x07")
