"""A run of the command leaves its records and results, and is taken up again after a stop."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from classification.config import ClassificationConfig
from classification.methods import METHODS
from rlcf.errors import UserError
from rlcf.metrics import calibration_error, paired_bootstrap
from rlcf.run.config import read_preset
from rlcf.run.dealing import shuffled
from rlcf.run.shard import Shard
from tests.tools import break_off_after

from .conftest import EMOJI

TUNES = ("prompt", "image-encoder", "norm")
MOMENTUM = ["--momentum", "--momentum-every", "1", "--momentum-decay", "0.5"]
N = 12
NOT_THERE = {("ctpt", "image-encoder"), ("ctpt", "norm")}
"""C-TPT moves class features."""


# ---- what runs, and what it leaves ----


@pytest.mark.parametrize(
    ("method", "tune"), [(name, tune) for name in METHODS for tune in TUNES if (name, tune) not in NOT_THERE]
)
def test_every_method_runs_with_every_part(classify, capsys, method, tune):
    results = classify("--method", method, "--tune", tune, "--limit", 3, "--save-logits")
    records, logits = results.records(seconds=True), results.logits()
    assert [r["status"] for r in records] == ["ok"] * 3 and all(r["seconds"] > 0 for r in records)
    moved = (logits["adapted"] - logits["zero_shot"]).abs().amax(dim=1) > 1e-4
    assert bool(moved.any()) == (method != "zeroshot")
    assert capsys.readouterr().out.startswith("folder:blur: n 3, zero-shot top-1 ")


def test_records_tell_both_answers_of_every_image(classify, emoji):
    records = classify("--method", "kd", "--tune", "norm").records(seconds=True)
    assert [r["index"] for r in records] == list(range(N))
    for record in records:
        path = emoji / "blur" / record["id"]
        assert path.is_file() and record["label"] == EMOJI.index(path.parent.name)
        for name in ("zero_shot", "adapted"):
            top5 = record[f"{name}_top5"]
            assert record[name] == top5[0] and len(set(top5)) == 5 and set(top5) <= set(range(6))
            assert 1 / 6 < record[f"{name}_confidence"] <= 1
    assert list(records[0]) == [
        "index",
        "id",
        "label",
        "label_name",
        "status",
        "zero_shot",
        "zero_shot_name",
        "zero_shot_top5",
        "zero_shot_confidence",
        "adapted",
        "adapted_name",
        "adapted_top5",
        "adapted_confidence",
        "names",
        "steps",
        "seconds",
    ]


def test_results_are_the_metrics_of_the_records(classify):
    results = classify("--datasets", "folder:blur", "folder:clean", "--tune", "norm", "--limit", 8, "--seed", 3)
    whole = json.loads((results.folder / "results.json").read_text())
    assert list(whole["datasets"]) == ["folder:blur", "folder:clean"] and whole["seed"] == 3
    assert {"python", "rlcf", "torch", "open_clip_torch"} <= whole["versions"].keys() and whole["command"]
    for dataset, metrics in whole["datasets"].items():
        records = results.records(dataset.replace(":", "-"), seconds=True)
        right = {}
        for name in ("zero_shot", "adapted"):
            right[name] = [r[name] == r["label"] for r in records]
            assert metrics[name]["top1"] == pytest.approx(100 * np.mean(right[name]))
            assert metrics[name]["top5"] == pytest.approx(
                100 * np.mean([r["label"] in r[f"{name}_top5"] for r in records])
            )
            error = calibration_error([r[f"{name}_confidence"] for r in records], right[name])
            assert metrics[name]["ece"] == pytest.approx(error)
        gain = [100 * value for value in paired_bootstrap(right["zero_shot"], right["adapted"])]
        assert [metrics["top1_gain"][key] for key in ("mean", "low", "high")] == pytest.approx(gain)
        assert (metrics["n"], metrics["unreadable"], metrics["non_finite"]) == (8, 0, 0)
        assert metrics["seconds_per_sample"] == pytest.approx(np.mean([r["seconds"] for r in records]))
        assert metrics["peak_memory_mb"] > 100


def test_the_run_folder_holds_the_resolved_config_and_a_log(classify, tmp_path):
    results = classify("--limit", 1, "--lr", "0.002")
    config = read_preset(ClassificationConfig, str(results.folder / "config.yaml"))
    assert config.keys() == {spec.name for spec in dataclasses.fields(ClassificationConfig)}
    assert (config["lr"], config["student"], config["sample_k"]) == (0.002, "demo-student", 3)
    assert (config["device"], config["precision"]) == ("cpu", "fp32")
    assert 'folder:blur: {"n": 1' in (results.folder / "log.txt").read_text()
    assert sorted(file.name for file in results.folder.iterdir()) == [
        ".lock",
        "config.yaml",
        "folder-blur",
        "log.txt",
        "results.json",
    ]


def test_a_written_config_is_a_preset_that_repeats_the_run(classify):
    first = classify("--limit", 2, "--method", "kd", "--tune", "norm")
    second = classify("--config", first.folder / "config.yaml", output="second")
    assert first.records() == second.records()


def test_zero_shot_answers_are_the_same_beside_every_method(classify):
    def zero_shot(*flags):
        return classify("--limit", 4, "--save-logits", *flags, output="-".join(flags)).logits()["zero_shot"]

    expected = zero_shot("--method", "zeroshot")
    for flags in (
        ("--method", "tpt", "--tune", "prompt"),
        MOMENTUM,
        ("--tune", "norm", "--batchnorm", "published-norm"),
    ):
        torch.testing.assert_close(zero_shot(*flags), expected, atol=1e-4, rtol=0)


def test_saved_logits_are_those_of_the_records(classify):
    results = classify("--save-logits", "--tune", "prompt")
    logits = results.logits()
    with safe_open(results.folder / "folder-blur" / "logits.safetensors", "pt") as stream:
        assert json.loads(stream.metadata()["classnames"]) == list(EMOJI)
    assert {name: matrix.shape for name, matrix in logits.items()} == {"zero_shot": (N, 6), "adapted": (N, 6)}
    for row, record in enumerate(results.records()):
        for name, matrix in logits.items():
            confidence, classes = matrix[row].softmax(dim=-1).topk(5)
            assert classes.tolist() == record[f"{name}_top5"]
            assert float(confidence[0]) == pytest.approx(record[f"{name}_confidence"])


def test_limit_takes_the_first_of_the_seeds_order(classify):
    records = classify("--limit", 5, "--method", "zeroshot").records()
    assert [r["index"] for r in records] == sorted(shuffled(N, 0, None)[:5])
    assert len(classify("--limit", 50, "--method", "zeroshot", output="all").records()) == N


# ---- the same seed, the same records ----


@pytest.mark.parametrize("augment", ["crop", "augmix"])
def test_records_do_not_depend_on_the_number_of_workers(classify, augment):
    flags = ["--limit", 4, "--augment", augment, "--tune", "norm"]
    alone = classify(*flags, "--workers", 0)
    assert classify(*flags, "--workers", 2, output="workers").records() == alone.records()


@pytest.mark.parametrize("momentum", [[], ["--momentum", "--momentum-every", 2, "--momentum-decay", 0.5]])
def test_an_interrupted_run_goes_on_to_the_same_records(classify, monkeypatch, momentum):
    flags = ["--limit", 6, "--tune", "norm", "--save-logits", *momentum]
    whole = classify(*flags, output="whole")
    for samples in (3, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            break_off_after(samples, patch)
            classify(*flags)
    with monkeypatch.context() as patch:
        calls = break_off_after(None, patch)
        again = classify(*flags, "--workers", 2)
    assert len(calls) == 1 and again.records() == whole.records()
    for name in ("zero_shot", "adapted"):
        assert torch.equal(again.logits()[name], whole.logits()[name])
    assert again.metrics["folder:blur"]["top1_gain"] == whole.metrics["folder:blur"]["top1_gain"]


def test_a_finished_run_is_reported_again_without_adapting(classify, monkeypatch, capsys):
    before = classify("--limit", 2).records()
    line = capsys.readouterr().out
    break_off_after(0, monkeypatch)
    assert classify("--limit", 2).records() == before and capsys.readouterr().out == line


def test_a_run_takes_further_datasets(classify):
    classify("--limit", 2, "--method", "zeroshot")
    results = classify("--limit", 2, "--method", "zeroshot", "--datasets", "folder:blur", "folder:clean")
    assert list(results.metrics) == ["folder:blur", "folder:clean"]


def test_a_changed_setting_refuses_to_mix_and_names_the_key(classify):
    classify("--limit", 1)
    with pytest.raises(UserError, match=r"run holds a run with another config: lr \(0.001 -> 0.5\); choose another"):
        classify("--limit", 1, "--lr", "0.5")


def test_images_that_changed_since_a_run_began_refuse_to_mix(classify, plant, checkpoint):
    data = plant("a/1.jpg", "b/1.jpg")
    flags = ["--data", data, "--datasets", "folder", "--student", checkpoint("vit"), "--method", "zeroshot"]
    classify(*flags)
    plant("a/0.jpg")
    with pytest.raises(UserError, match=r"run/folder was begun with other samples than there are now; choose another"):
        classify(*flags)


def test_momentum_refuses_shards(classify, monkeypatch):
    monkeypatch.setattr(Shard, "from_environment", staticmethod(lambda: Shard(0, 2)))
    with pytest.raises(UserError, match=r"--momentum .* cannot be sharded; start one process"):
        classify("--momentum")


@pytest.mark.parametrize("tune", ["prompt", "image-encoder"])
def test_a_momentum_buffer_ends_with_its_dataset(classify, tune):
    flags = ["--tune", tune, "--limit", 3, "--momentum", "--momentum-every", 1, "--momentum-decay", 0.5]
    both = classify(*flags, "--datasets", "folder:blur", "folder:clean", output="both")
    alone = classify(*flags, "--datasets", "folder:clean", output="alone")
    assert both.records("folder-clean") == alone.records("folder-clean")


def test_answers_that_are_not_finite_are_counted_and_stay_zero_shot(classify, capsys):
    results = classify("--limit", 2, "--lr", "1e30", "--steps", 2)
    for record in results.records():
        assert record["status"] == "non-finite" and record["adapted_top5"] == record["zero_shot_top5"]
        assert record["adapted_confidence"] == record["zero_shot_confidence"]
    assert results.metrics["folder:blur"]["non_finite"] == 2
    assert "2 kept zero-shot (not finite)" in capsys.readouterr().out


# ---- images that cannot be read ----


@pytest.fixture
def damaged(emoji, tmp_path):
    """A copy of the clean emoji with one truncated picture."""
    folder = tmp_path / "damaged"
    for file in (emoji / "clean").rglob("*.png"):
        copy = folder / file.relative_to(emoji / "clean")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    bad = folder / "cat" / "1.png"
    bad.write_bytes(bad.read_bytes()[:900])
    return bad


def test_a_damaged_image_stops_the_run_and_the_remedy_goes_on_with_it(classify, damaged, capsys):
    flags = ["--data", damaged.parents[1], "--datasets", "folder", "--tune", "norm"]
    with pytest.raises(UserError) as error:
        classify(*flags)
    assert str(error.value).startswith(f"{damaged} cannot be read as an image (")
    assert str(error.value).endswith("); mend it or pass --skip-bad-images")

    results = classify(*flags, "--skip-bad-images")
    records = results.records("folder")
    (bad,) = [r for r in records if r["status"] == "unreadable"]
    assert len(records) == N and bad["id"] == "cat/1.png" and str(damaged) in bad["reason"]
    metrics = results.metrics["folder"]
    assert (metrics["n"], metrics["unreadable"]) == (N - 1, 1)
    assert f"skipped: {damaged}" in (results.folder / "log.txt").read_text()
    assert capsys.readouterr().out.endswith(", 1 unreadable\n")


def test_a_mended_image_lets_the_run_go_on(classify, damaged, emoji):
    flags = ["--data", damaged.parents[1], "--datasets", "folder", "--method", "zeroshot"]
    with pytest.raises(UserError):
        classify(*flags)
    damaged.write_bytes((emoji / "clean" / "cat" / "1.png").read_bytes())
    assert [r["status"] for r in classify(*flags).records("folder")] == ["ok"] * N


def test_logits_of_an_unreadable_image_are_nan(classify, damaged):
    flags = ["--data", damaged.parents[1], "--datasets", "folder", "--method", "zeroshot"]
    results = classify(*flags, "--skip-bad-images", "--save-logits")
    row = [r["id"] for r in results.records("folder")].index("cat/1.png")
    logits = results.logits("folder")["adapted"]
    assert logits.isnan().any(dim=1).nonzero().flatten().tolist() == [row] and logits[row].isnan().all()


def test_a_dataset_of_unreadable_images_is_told(classify, plant):
    data = plant("cat/1.jpg", "dog/1.jpg")
    for file in data.rglob("*.jpg"):
        file.write_text("no picture")
    with pytest.raises(UserError, match=r"none of the images could be read; records\.jsonl tells why"):
        classify("--data", data, "--datasets", "folder", "--skip-bad-images", "--method", "zeroshot")
