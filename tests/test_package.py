"""The wheel, installed away from the checkout, does what the checkout does."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from classification.main import main
from demo.world import write_classification
from rlcf import __version__
from tests.tools import ROOT, Results

MODELS = ["--student", "demo-student", "--reward", "demo-reward", "--device", "cpu", "--workers", "0", "--limit", "2"]


def pip(*words, cwd):
    offline = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", *words, *offline], cwd=cwd, check=True)


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder into which a wheel of the files that git does not ignore was installed."""
    work = tmp_path_factory.mktemp("package")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (work / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, work / "source" / name)
    pip("wheel", "./source", "--no-build-isolation", "--wheel-dir", "wheels", cwd=work)
    (wheel,) = (work / "wheels").iterdir()
    pip("install", str(wheel), "--target", "installed", cwd=work)
    return work / "installed"


@pytest.fixture
def start(installed, tmp_path):
    """Starts an installed command in a folder that is not the checkout's."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return lambda command, *flags: subprocess.Popen(
        [installed / "bin" / command, *flags], cwd=tmp_path, env=environment, **pipes
    )


@pytest.mark.slow
def test_an_installed_command_adapts_with_a_preset_and_models_that_came_along(start, tmp_path):
    write_classification(tmp_path / "pictures", "blur", 1, seed=7)
    flags = ["--config", "rlcf-tune-single", "--data", ".", "--datasets", "folder:pictures", "--views", "10"]
    process = start("rlcf-classify", *flags, *MODELS, "--output", "run")
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "folder:pictures: n 2" in printed
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["datasets"]["folder:pictures"]["n"] == 2
    assert results["versions"]["rlcf"] == __version__
    assert results["commit"] is None  # an installed package is of no checkout


@pytest.mark.slow
def test_every_other_installed_command_tells_its_version(start):
    running = [start(f"rlcf-{name}", "--version") for name in ("retrieve", "caption", "clipscore", "report", "data")]
    for process in running:
        printed, errors = process.communicate(timeout=300)
        assert (printed, process.returncode) == (f"rlcf {__version__}\n", 0), errors


@pytest.mark.slow
def test_the_reports_page_and_the_papers_figures_come_along(installed):
    for name in ("published.json", "page/page.html", "page/macros.html", "page/page.css", "page/page.js"):
        assert (installed / "rlcf" / "report" / name).read_text() == (ROOT / "rlcf" / "report" / name).read_text()


@pytest.mark.slow
def test_presets_and_demo_models_come_along_and_nothing_else_of_the_assets(installed):
    def files(folder):
        kept = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        return {str(file.relative_to(folder)) for file in kept}

    for task in ("classification", "retrieval", "caption"):
        presets = files(ROOT / task / "configs")
        assert presets and files(installed / task / "configs") == presets
    models = {name for name in files(ROOT / "assets") if name.startswith("demo-")}
    assert {"demo-student/open_clip_config.json", "demo-art/noto.png", "demo-lm/tokenizer.json"} <= models
    assert files(installed / "rlcf" / "assets") == models
    assert not {"tests", "benchmarks", "scripts"} & {path.name for path in installed.iterdir()}


@pytest.mark.slow
def test_the_long_description_and_the_licence_come_along(installed):
    (about,) = installed.glob("rlcf-*.dist-info")
    metadata = (about / "METADATA").read_text()
    assert (ROOT / "README.md").read_text().splitlines()[0] in metadata and "License-Expression: MIT" in metadata
    assert "Provides-Extra: dev" in metadata
    assert (about / "licenses" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_a_run_from_the_checkout_tells_its_git_commit(tmp_path):
    write_classification(tmp_path / "pictures", "clean", 1, seed=7)
    flags = ["--method", "zeroshot", "--data", str(tmp_path), "--datasets", "folder:pictures"]
    main([*flags, *MODELS, "--output", str(tmp_path / "run")])
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert Results(tmp_path / "run").results["commit"].removesuffix("+") == head.strip()
