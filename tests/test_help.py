"""Every command in a help text, a docstring, a launcher's head or a document is one that works.

Nothing is computed: commands are parsed by their own parsers, and launchers start a stand-in for Python that notes what
it was called with.
"""

import argparse
import ast
import importlib
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlcf.errors import UserError
from rlcf.run.config import parse_config
from rlcf.shipped import shipped_folder
from tests.tools import ROOT

ROOMS = ("rlcf", "classification", "retrieval", "caption", "clipscore", "demo", "benchmarks", "examples")
CONSOLE = {
    "rlcf-classify": "classification/main.py",
    "rlcf-retrieve": "retrieval/main.py",
    "rlcf-caption": "caption/main.py",
    "rlcf-clipscore": "clipscore/main.py",
    "rlcf-report": "rlcf/report/main.py",
    "rlcf-data": "rlcf/data/main.py",
}
COMMAND = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:\S*\bpython|\S*\bpip|torchrun|bash|{'|'.join(CONSOLE)}) ")
PLACEHOLDERS = {
    *("ROOT", "PHOTO", "PHOTOS", "IMAGE", "IMAGES", "RUN", "FEATURES", "LISTS", "FILE", "FOLDER", "DIR", "ARTIST"),
    *("candidates.json", "refs.json", "captions.json", "ckpt-latest.pt", "COCO_train_set_image_text_vitb16_v2.pkl"),
    *("coco_karpathy_train.json", "coco_karpathy_val.json", "train.json", "clean.json", "flickr30k_train.json"),
    *("nocaps_val_4500_captions.json", "dataset_coco.json", "dataset_flickr30k.json", "results.json", "names.txt"),
    *("LOC_val_solution.csv", "FLAT", "LIST", "folder:PHOTOS", "coco_karpathy_test.json"),
}
"""Words that stand for a user's own files."""
VALUES = {"GPU": "0", "N": "1"}
"""Placeholders that a parser would refuse, and what is put in their place."""
SUFFIXES = {".py", ".sh", ".yaml", ".json", ".txt", ".md", ".png", ".pt", ".pkl", ".safetensors"}
WRITES = ("--output", "--save-per-instance", "--csv", "--markdown", "--latex")
"""Flags whose value need not exist."""
RECORDER = """#!/usr/bin/env bash
line="$(printf '%q ' "$@")"
printf '%s\\n' "$line" >> "$RECORDED"
while [ $# -gt 1 ]; do
    if [ "$1" = --output ]; then mkdir -p "$2" && touch "$2/mapper.safetensors"; fi
    shift
done
"""
"""Stands in for Python in launchers; makes what the next line of a launcher copies."""


class WrongExample(Exception):
    pass


class Parsed(Exception):
    pass


def commands_in(file):
    """The commands in a file's strings (.py), comments (.sh), or code blocks and spans (.md)."""
    text = file.read_text()
    if file.suffix == ".py":
        constants = (node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
        lines = [line for value in constants if isinstance(value, str) for line in joined_lines(value)]
    elif file.suffix == ".sh":
        lines = [line.removeprefix("#") for line in joined_lines(text) if line.startswith("#")]
    else:
        spans = [span.replace("\n", " ") for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
        blocks = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        lines = [line for line in joined_lines(text) if line.startswith("    ")]
        lines += spans + [line for block in blocks for line in joined_lines(block)]
    lines = [" ".join(line.split()) for line in lines]
    return [line for line in lines if COMMAND.match(line)]


def joined_lines(text):
    return re.sub(r"\\\n\s*", "", text).splitlines()


def documents():
    return [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]


def sources():
    python = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    return [*python, *sorted(ROOT.glob("scripts/*.sh")), *documents()]


EXAMPLES = list(dict.fromkeys((str(file.relative_to(ROOT)), line) for file in sources() for line in commands_in(file)))


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Runs a copy of a launcher. Returns the words of each call of Python, paths below the checkout or ROOT."""
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "scripts", project / "scripts")
    recorder, calls = project / "recorder", project / "calls"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key not in ("OUTPUT", "CLIP_ROOT")}
    environment |= {"PYTHON": str(recorder), "RECORDED": str(calls), "RLCF_ROOT": str(project / "ROOT")}

    def run(script, arguments):
        calls.write_text("")
        command = ["bash", str(project / script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=project, env=environment, timeout=60)
        if done.returncode:
            raise WrongExample(done.stderr)
        said = calls.read_text().replace(f"{project}/ROOT", "ROOT").replace(f"{project}/", "")
        return [shlex.split(line) for line in said.splitlines()]

    return run


@pytest.fixture
def check(launch, monkeypatch):
    """Raises WrongExample for a command that would not work."""
    monkeypatch.chdir(ROOT)
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, *arguments):
        original(parser, *arguments)
        raise Parsed

    def check_parsed(script, arguments):
        source = (ROOT / script).read_text()
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        config = re.search(r"\bparse_config\((\w+),", source)
        try:
            if config:
                parse_config(getattr(module, config[1]), arguments, "", "")
                return
            with monkeypatch.context() as patch:
                patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
                patch.setattr(sys, "argv", [script, *arguments])
                module.main()
        except Parsed:
            pass
        except UserError as error:
            raise WrongExample(f"{script}: {error}") from error
        except SystemExit as stop:
            if stop.code:
                raise WrongExample(f"{script} refuses {arguments}") from stop

    def check_python(words):
        """words: what follows `python`, or torchrun's own flags."""
        if words[0] == "-m" and words[1].split(".")[0] in ROOMS:
            room, arguments = words[1].replace(".", "/"), words[2:]
            places = [f"{room}/main.py", f"{room}/__main__.py", f"{room}.py"]
            script = next((place for place in places if (ROOT / place).is_file()), places[-1])
        elif words[0].startswith("-"):
            return
        else:
            script, arguments = words[0], words[1:]
        if not (ROOT / script).is_file():
            raise WrongExample(f"there is no {script}")
        check_parsed(script, arguments)

    def check_words(words):
        check_files(words)
        program = Path(words[0]).name
        if program == "python":
            check_python(words[1:])
        elif program == "torchrun":
            first = next(i for i, word in enumerate(words) if word == "-m" or word.endswith(".py"))
            check_python(words[first:])
        elif program in CONSOLE:
            check_parsed(CONSOLE[program], words[1:])
        elif program == "bash" and Path(words[1]).name != "setup.sh":
            for call in launch(words[1], words[2:]):
                check_words(["python", *call])

    def check(line):
        line, elided = re.sub(r"\s#.*", "", line).replace("[flags]", ""), "..." in line
        for text in alternatives(line) if "scripts/" in line else [line]:
            for command in text.split("&&"):
                words = [VALUES.get(word, word) for word in shlex.split(command) if word != "..."]
                words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
                try:
                    check_words(words)
                except WrongExample as wrong:
                    if not (elided and "arguments are required" in str(wrong)):
                        raise

    return check


def alternatives(usage):
    """Every way to read the "[a|b]" of a usage line."""
    parts = re.split(r"\[([^\]]*)\]", usage)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def check_files(words):
    """Raises WrongExample for a file or a shipped model that the project should have and has not."""
    for flag, word in zip(["", *words], words, strict=False):
        parts = Path(word).parts
        mine = any(part in PLACEHOLDERS or Path(part).stem in PLACEHOLDERS for part in parts)
        if flag in WRITES or mine or word.startswith((".venv/", "output/", "-")):
            continue
        named = Path(word).suffix in SUFFIXES or (len(parts) > 1 and (ROOT / parts[0]).is_dir())
        if named and not (ROOT / word).exists():
            raise WrongExample(f"there is no {word}")
        if re.fullmatch(r"demo-\w+", word) and not shipped_folder(word):
            raise WrongExample(f"no model {word} comes along")


@pytest.mark.parametrize(("source", "line"), EXAMPLES, ids=lambda value: value[:60].strip())
def test_an_example_works(source, line, check):
    check(line)


def test_there_are_examples_of_every_command():
    told = " ".join(line for _, line in EXAMPLES)
    for script in (*CONSOLE.values(), "caption/train.py", "caption/extract_features.py", "demo.world"):
        named = script in told or script.removesuffix("/main.py").replace("/", ".") in told
        assert named or script == CONSOLE["rlcf-data"]
    assert "rlcf-data get" in told and "rlcf-data check" in told and "rlcf-data convert" in told
    assert len(EXAMPLES) > 50


@pytest.mark.parametrize("script", sorted(ROOT.glob("scripts/*.sh")), ids=lambda script: script.name)
def test_a_launchers_syntax_is_right(script):
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("document", documents(), ids=lambda file: file.name)
def test_every_launcher_and_preset_that_a_document_names_exists(document):
    text = document.read_text()
    for name in set(re.findall(r"[\w*-]+\.sh\b", text)):
        assert list((ROOT / "scripts").glob(name)), name
    for name in set(re.findall(r"[\w*-]+/configs/[\w*-]+\.yaml", text)):
        assert list(ROOT.glob(name)), name


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("python classification/main.py --config classification/configs/nothing.yaml", "no classification/configs/no"),
        ("rlcf-classify --config nothing", "no preset nothing"),
        ("python classification/main.py --nothing 3", "--nothing"),
        ("python classification/main.py --steps 0 --data ROOT", "must be at least 1"),
        ("python classification/main.py --student demo-nothing", "no model demo-nothing"),
        ("torchrun --nproc-per-node 4 classification/main.py --episodes 2", "--episodes"),
        ("python nothing/main.py --data ROOT", "no nothing/main.py"),
        ("python -m demo.nothing DIR", "no demo/nothing.py"),
        ("python -m demo.world DIR --nothing", "unrecognized arguments: --nothing"),
        ("python clipscore/main.py candidates.json IMAGES --nothing", "--nothing"),
        ("bash scripts/nothing.sh 0", "no scripts/nothing.sh"),
        ("bash scripts/rlcf-tune.sh GPU [single|nothing] [flags]", "unknown variant 'nothing'"),
        ("RLCF_ROOT=/data bash scripts/rlcf-tune.sh 0 --nothing 3  # why", "--nothing"),
        ("python -m venv .venv && .venv/bin/pip install -r nothing.txt", "no nothing.txt"),
    ],
)
def test_an_example_that_would_not_work_is_found(line, wrong, check, capsys):
    with pytest.raises(WrongExample, match=re.escape(wrong)):
        check(line)


def test_examples_are_read_from_strings_comments_blocks_and_spans(tmp_path):
    texts = {
        "a.py": '"""Title.\n\n    python a.py \\\n        --b\n\nA python bites.\n"""\nX = "bash scripts/c.sh 0"\n',
        "a.sh": "#!/usr/bin/env bash\n#   bash scripts/a.sh GPU\npython never\n",
        "a.md": "Say `python\nb.py`.\n\n    rlcf-caption --c\n\n```\nbash scripts/d.sh\n```\n",
    }
    found = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        found[name] = sorted(commands_in(tmp_path / name))
    assert found == {
        "a.py": ["bash scripts/c.sh 0", "python a.py --b"],
        "a.sh": ["bash scripts/a.sh GPU"],
        "a.md": ["bash scripts/d.sh", "python b.py", "rlcf-caption --c"],
    }


@pytest.mark.parametrize("task", ["classification", "retrieval", "caption"])
def test_every_method_has_a_line_of_help(task, capsys):
    main = importlib.import_module(f"{task}.main").main
    methods = importlib.import_module(f"{task}.methods").METHODS
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert len({method.told for method in methods.values()}) == len(methods)
    assert all([name, method.told] in lines for name, method in methods.items())
