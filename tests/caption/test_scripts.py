"""The launchers, one after another as a user runs them, on a tiny tree in the published layout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caption.training.features import read_features
from tests.tools import Results

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def launch(tmp_path):
    def run(script, *flags):
        settings = {"RLCF_ROOT": str(tmp_path), "PYTHON": sys.executable, "LANGUAGE_MODEL": "demo-lm"}
        settings |= {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        command = ["bash", str(SCRIPTS / script), *flags]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | settings)

    return run


def test_extraction_training_and_adaptation_follow_one_another(launch, world, tmp_path):
    coco, flickr = tmp_path / "dataset" / "coco2014", tmp_path / "dataset" / "flickr30k"
    for root, file in ((coco, "coco_karpathy_train.json"), (flickr, "annotations/flickr30k_test.json")):
        shutil.copytree(world / "clean", root / "clean")
        (root / file).parent.mkdir(exist_ok=True)
        shutil.copy(world / "clean.json", root / file)
    done = launch("extract_coco.sh", "cpu", "--student", "demo-student", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert "no features for the validation loss" in done.stderr
    assert read_features(str(tmp_path / "output/features/coco-train-vitb16")).image.shape == (8, 128)

    small = ["--prefix-length", "2", "--clip-length", "2", "--layers", "1", "--epochs", "1", "--warmup", "0"]
    done = launch("train_clipcap_coco.sh", "cpu", *small)
    assert done.returncode == 0, done.stderr
    trained = tmp_path / "output" / "clipcap_opt125m_transformer_coco_01"
    assert (trained / "loss.png").is_file() and (trained / "ckpt-latest.pt").is_file()

    models = ["--student", "demo-student", "--reward", "demo-reward", "--workers", "0"]
    done = launch("tta_clipcap_c2f.sh", "cpu", "single", *models, "--limit", "2", "--no-evaluate")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "output" / "tta-clipcap-c2f-single"
    records = Results(folder).records("flickr30k")
    assert len(records) == 2 and all(len(record["steps"]) == 4 for record in records)
    assert json.loads((folder / "flickr30k" / "candidates.json").read_text()).keys() == {r["id"] for r in records}


def test_a_launcher_without_a_gpus_number_tells_it(launch):
    for script in ("extract_coco.sh", "train_capdec_coco.sh", "tta_capdec_c2n.sh", "eval_captions.sh", "eval_coco.sh"):
        done = launch(script)
        assert done.returncode == 2 and done.stderr.startswith("error: the first argument is the GPU's number")
