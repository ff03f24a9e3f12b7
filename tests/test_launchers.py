"""What all launchers share: shellcheck, line ends, the Python they take, and what they say before they start."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.tools import ROOT

LAUNCHERS = sorted(ROOT.glob("scripts/*.sh"))
SHELLCHECK = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(ROOT / ".venv" / "bin"))


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    done = subprocess.run([SHELLCHECK, *LAUNCHERS, ".ci/run"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_launchers_keep_their_line_ends_on_windows():
    command = ["git", "check-attr", "eol", "--", "scripts/env.sh", "scripts/rlcf-tune.sh", ".ci/run"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.rpartition(" ")[2] for line in told.splitlines()] == ["lf"] * 3
    assert all(b"\r" not in launcher.read_bytes() for launcher in LAUNCHERS)


def test_every_launcher_can_be_executed_and_heads_with_commands_that_can_be_pasted():
    for launcher in LAUNCHERS:
        head = [line for line in launcher.read_text().splitlines() if line.startswith("#")]
        assert head[0] == "#!/usr/bin/env bash" and os.access(launcher, os.X_OK)
        commands = [line for line in head if line.startswith("#   bash scripts/")]
        assert commands or launcher.name in ("env.sh", "captioners.sh")
        assert not any(mark in command for command in commands for mark in ("[", "|", "GPU"))


@pytest.mark.parametrize(
    "file", ["README.md", *sorted(str(f.relative_to(ROOT)) for f in ROOT.glob("*/configs/*.yaml"))]
)
def test_commands_of_documents_and_presets_can_be_pasted(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if "bash scripts/" in line]
    assert lines and not any("[" in re.sub(r"\[[^]]*\]\(", "", line) for line in lines)


@pytest.fixture
def project(tmp_path):
    """A copy of the launchers, whose setup.sh only tells that it was called. Returns a function that runs one."""
    folder = tmp_path / "a project"
    for name in ("scripts", "rlcf"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "requirements.txt").write_text("numpy>=1.0\n")
    (folder / "scripts" / "setup.sh").write_text('echo "set up" >&2; exit 3\n')

    def run(script, *arguments, cwd=tmp_path, **environment):
        kept = {key: value for key, value in os.environ.items() if key not in ("PYTHON", "VIRTUAL_ENV", "RLCF_ROOT")}
        command = ["bash", str(folder / "scripts" / script), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=kept | environment)

    run.folder = folder
    return run


def path_with(folder, **programs):
    """A PATH that has the system's programs, but no Python other than those given."""
    folder.mkdir()
    for name, target in programs.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{target}" "$@"\n')
        (folder / name).chmod(0o755)
    for tool in ("bash", "sh", "dirname", "cat", "env", "mkdir"):
        (folder / tool).symlink_to(shutil.which(tool))
    return str(folder)


def test_a_python_on_the_path_that_has_the_requirements_is_used(project, tmp_path):
    done = project("rlcf-data.sh", "list", "A", PATH=path_with(tmp_path / "bin", python3=sys.executable))
    assert done.returncode == 0 and done.stdout.startswith("A\n") and "set up" not in done.stderr


def test_an_active_environment_comes_first(project, tmp_path):
    active = tmp_path / "active" / "bin"
    active.mkdir(parents=True)
    (active / "python").write_text(f'#!/bin/sh\necho "the active one" >&2\nexec "{sys.executable}" "$@"\n')
    (active / "python").chmod(0o755)
    path = path_with(tmp_path / "bin", python3=sys.executable)
    done = project("rlcf-data.sh", "list", "A", PATH=path, VIRTUAL_ENV=str(active.parent))
    assert done.returncode == 0 and "the active one" in done.stderr


@pytest.mark.parametrize("lacking", ["numpy>=999\n", "a-package-that-nobody-has\n"])
def test_an_environment_is_set_up_where_no_python_has_the_requirements(lacking, project, tmp_path):
    (project.folder / "requirements.txt").write_text(f"# ours\n{lacking}")
    done = project("rlcf-data.sh", "list", PATH=path_with(tmp_path / "bin", python3=sys.executable))
    assert done.returncode == 3 and "set up" in done.stderr


def test_a_launcher_tells_its_command_and_what_is_missing_and_starts_nothing(project, tmp_path):
    root = tmp_path / "my data"
    done = project("rlcf-prompt.sh", "0", "words", "--datasets", "A", PYTHON=sys.executable, RLCF_ROOT=str(root))
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout and not root.exists()
    script = f"{sys.executable} {project.folder}/classification/main.py".replace("a project", "a\\ project")
    assert lines[0].startswith(f"{script} --config ") and lines[0].rstrip().endswith("--gpu 0 --datasets A")
    assert "--data " + str(root).replace(" ", "\\ ") in lines[0]
    told = next(line for line in lines if line.startswith("missing: "))
    assert "dataset A (ImageNet-A); get it: " in told and told.endswith(f"get A --data '{root}'")
    assert lines[-1] == "error: a thing is missing; nothing was started"


def test_the_advice_can_be_pasted(project, tmp_path):
    path = path_with(tmp_path / "bin", python3=sys.executable)
    done = project("rlcf-prompt.sh", "0", "words", "--datasets", "I", PATH=path, RLCF_ROOT=str(tmp_path / "my data"))
    told = next(line for line in done.stderr.splitlines() if line.startswith("missing: "))
    pasted = told.partition("how to get it: ")[2]
    again = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, cwd="/", env={"PATH": path})
    assert again.returncode == 1 and "1. make an account at image-net.org" in again.stdout, again.stderr


def test_a_launcher_goes_on_when_all_is_there(project, tmp_path):
    (tmp_path / "imagenet-a" / "n01498041").mkdir(parents=True)
    task = project.folder / "classification"
    (task / "configs").mkdir(parents=True)
    (task / "configs" / "mta.yaml").write_text("student: demo-student\n")
    (task / "main.py").write_text("import sys; print('started', *sys.argv[-2:])\n")
    done = project("mta.sh", "cpu", "--datasets", "A", PYTHON=sys.executable, RLCF_ROOT=str(tmp_path), cwd="/")
    assert (done.returncode, done.stdout) == (0, "started --datasets A\n"), done.stderr


@pytest.fixture
def calls(project, tmp_path):
    """The words of each call of Python that a launcher makes, what stands in for Python does nothing."""
    recorder, noted = tmp_path / "recorder", tmp_path / "noted"
    recorder.write_text(f'#!/usr/bin/env bash\nprintf "%s\\n" "$*" >> "{noted}"\n')
    recorder.chmod(0o755)

    def run(script, *arguments):
        noted.write_text("")
        done = project(script, *arguments, PYTHON=str(recorder), RLCF_ROOT=str(tmp_path / "R"))
        assert done.returncode == 0, done.stderr
        lines = noted.read_text().replace(f"{project.folder}/", "").replace(f"{tmp_path}/R/", "R/").splitlines()
        return [line for line in lines if not line.startswith("-m rlcf.data need ")]

    run.root = tmp_path / "R"
    return run


def test_features_of_flickr30k_are_of_its_lists_wherever_they_lie(calls):
    flickr = calls.root / "dataset" / "flickr30k"
    (flickr / "annotations").mkdir(parents=True)
    (flickr / "annotations" / "flickr30k_train.json").write_text("")
    (flickr / "flickr30k_val.json").write_text("")
    training, validation = calls("extract_flickr.sh", "0", "--workers", "4")
    shared = (
        "--clip-root R/pretrained/clip --image-reading published --skip-bad-images --output R/output/features/flickr30k"
    )
    extract = "caption/extract_features.py --data R/dataset/flickr30k --captions"
    assert training == f"{extract} annotations/flickr30k_train.json {shared}-train-vitb16 --gpu 0 --workers 4"
    assert validation == f"{extract} flickr30k_val.json {shared}-val-vitb16 --gpu 0 --workers 4"


@pytest.mark.parametrize("method", ["clipcap", "capdec"])
def test_captioners_are_trained_on_flickr30ks_features_own_ones_first(method, calls):
    (call,) = calls(f"train_{method}_flickr.sh", "0")
    assert f"--config caption/configs/train-{method}-coco.yaml" in call
    assert "--data R/dataset/flickr30k/flickr_train_set_image_text_vitb16_v2.pkl" in call
    assert f"--output R/output/{method}_opt125m_transformer_flickr_01" in call and "--validation" not in call
    for part in ("train", "val"):
        (calls.root / "output" / "features" / f"flickr30k-{part}-vitb16").mkdir(parents=True)
    (call,) = calls(f"train_{method}_flickr.sh", "0")
    assert "--data R/output/features/flickr30k-train-vitb16 --validation R/output/features/flickr30k-val-vitb16" in call


def test_a_captioner_without_adaptation_has_a_folder_of_its_own(calls):
    (captions,) = calls("eval_c2n.sh", "0", "capdec")
    assert captions.startswith("caption/main.py --config caption/configs/eval-c2n.yaml --data ")
    assert "--output R/output/eval-c2n-capdec" in captions
    assert "--checkpoint R/output/capdec_opt125m_transformer_coco_01 --gpu 0" in captions
