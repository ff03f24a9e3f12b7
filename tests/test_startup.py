"""The first word of a command comes before torch is imported: its help, a wrong flag, a folder that is not there."""

import json
import subprocess
import sys

import pytest

from tests.tools import ROOT

COMMANDS = {
    "classification.main": [],
    "retrieval.main": [],
    "caption.main": ["--checkpoint", "demo-clipcap", "--language-model", "demo-lm"],
    "caption.extract_features": ["--captions", "list.json"],
    "caption.train": [],
}
"""Module -> flags with which the folder that is not there is its one mistake."""
MISTAKES = {
    "classification.main": [
        (["--data", "{data}", "--datasets", "A"], "dataset A was not found; tried "),
        (["--data", "{data}", "--student", "gone/ViT-B-16.pt"], "there is no CLIP gone/ViT-B-16.pt; '"),
        (["--data", "{data}", "--student", "ViT-B-32:gone/epoch_10.pt"], "there is no CLIP gone/epoch_10.pt; give a"),
        (["--data", "{data}", "--tune", "prompt", "--context", "gone"], "there is no CoOp checkpoint gone; "),
        (["--data", "{data}", "--datasets", "images"], "give --classnames"),
    ],
    "retrieval.main": [
        (["--data", "{data}"], "dataset coco was not found; tried "),
        (["--data", "{data}", "--reward", "./gone"], "--reward: there is no CLIP ./gone; "),
    ],
    "caption.main": [
        (["--data", "{data}", "--checkpoint", "gone"], "no captioner gone; scripts/train_clipcap_coco.sh and "),
        (["--data", "{data}", "--checkpoint", "{data}"], "holds neither mapper.safetensors nor ckpt-latest.pt"),
        (
            ["--data", "{data}", "--checkpoint", "demo-clipcap", "--language-model", "./gone"],
            "no language model's folder",
        ),
    ],
    "caption.train": [
        (
            ["--data", "{data}", "--validation", "gone"],
            "--validation: there is no features gone; scripts/extract_coco.",
        ),
    ],
    "clipscore.main": [
        (["gone.json", "{data}"], "gone.json cannot be read as JSON"),
        (["{data}/candidates.json", "gone"], "no image folder gone"),
        (["{data}/candidates.json", "{data}", "--clip", "gone.pt"], "--clip: there is no CLIP gone.pt"),
    ],
}
DRIVER = """
import importlib, json, sys
from rlcf.errors import UserError
said = []
for module, argv in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module).main(argv)
    except SystemExit as end:
        said.append(end.code)
    except UserError as error:
        said.append(str(error))
heavy = [name for name in ("torch", "open_clip", "transformers", "torchvision") if name in sys.modules]
print(json.dumps([said, heavy]))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "candidates.json").write_text('{"a.png": "a dog"}')
    return str(folder)


def first_words(calls):
    """What each call of a main ended with, an exit code or a sentence, and which heavy modules were imported."""
    done = subprocess.run([sys.executable, "-c", DRIVER, json.dumps(calls)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_help_a_wrong_flag_and_a_missing_folder_need_no_torch():
    calls, expected = [], []
    for module, flags in {**COMMANDS, "clipscore.main": []}.items():
        places = ["candidates.json", "images"] if module == "clipscore.main" else []
        calls += [(module, ["--help"]), (module, [*places, "--nothing"])]
        expected += [0, "--nothing"]
        if module != "clipscore.main":
            calls.append((module, ["--data", "gone", *flags]))
            expected.append("gone")
    said, heavy = first_words(calls)
    assert heavy == []
    for (module, argv), found, wanted in zip(calls, said, expected, strict=True):
        assert found == wanted or (isinstance(wanted, str) and wanted in found), (module, argv, found)


def test_what_is_missing_is_told_with_what_brings_it_before_torch_is_imported(data):
    calls = [
        (module, [word.format(data=data) for word in argv]) for module, cases in MISTAKES.items() for argv, _ in cases
    ]
    said, heavy = first_words(calls)
    assert heavy == []
    for (_, found), told in zip(
        enumerate(said), (told for cases in MISTAKES.values() for _, told in cases), strict=True
    ):
        assert told in str(found)


def test_metrics_against_references_need_no_torch_at_all(tmp_path):
    for name, content in (("candidates.json", {"a": "a dog"}), ("refs.json", {"a": ["a dog runs"]})):
        (tmp_path / name).write_text(json.dumps(content))
    argv = [f"{tmp_path}/candidates.json", "--references", f"{tmp_path}/refs.json", "--clip", "none", "--no-java"]
    module = "import sys; from clipscore.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", module, *argv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("1 captions") and done.stdout.splitlines()[-1] == "False"


def test_the_script_that_a_user_starts_imports_no_torch_for_its_help():
    command = [sys.executable, "-X", "importtime", str(ROOT / "classification/main.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and done.stdout.startswith("usage: main.py")
    assert "rlcf.run.config" in imported and "torch" not in imported
