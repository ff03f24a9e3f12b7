import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from classification import main as entry
from classification.clip_model import class_features
from classification.config import METHODS, ClassificationConfig
from classification.main import main, make_rewards
from rlcf.errors import UserError, run_main
from rlcf.metrics import calibration_error, paired_bootstrap
from rlcf.run.config import parse_config, read_preset
from rlcf.run.records import Shard, shuffled

from .conftest import EMOJI, TINY_RUN, Results

ROOT = Path(__file__).resolve().parents[2]
TUNES = ("prompt", "image-encoder", "norm")
N = 12


def run_script(*flags, cwd):
    """The entry script as a user runs it."""
    return subprocess.run(
        [sys.executable, str(ROOT / "classification" / "main.py"), *map(str, flags)],
        cwd=cwd,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=180,
    )


# ---- what runs, and what it leaves ----


@pytest.mark.parametrize("tune", TUNES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_tunes_every_part(classify, capsys, method, tune):
    results = classify("--method", method, "--tune", tune, "--limit", 3, "--save-logits")
    records, logits = results.records(seconds=True), results.logits()
    assert [r["status"] for r in records] == ["ok"] * 3 and all(r["seconds"] > 0 for r in records)
    moved = (logits["adapted"] - logits["zero_shot"]).abs().amax(dim=1) > 1e-4
    assert moved.tolist() == [method != "zeroshot"] * 3
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
        "status",
        "zero_shot",
        "zero_shot_top5",
        "zero_shot_confidence",
        "adapted",
        "adapted_top5",
        "adapted_confidence",
        "seconds",
    ]


def test_results_are_the_metrics_of_the_records(classify):
    results = classify("--datasets", "folder:blur", "folder:clean", "--tune", "norm", "--limit", 8, "--seed", 3)
    whole = json.loads((results.folder / "results.json").read_text())
    assert list(whole["datasets"]) == ["folder:blur", "folder:clean"] and whole["seed"] == 3
    assert {"python", "torch", "open_clip_torch"} <= whole["versions"].keys() and whole["command"]
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


def break_off_after(samples, monkeypatch):
    """Ctrl-C after so many samples."""
    calls = []

    def adapt(*arguments):
        if len(calls) == samples:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*arguments)

    original = entry.adapt
    monkeypatch.setattr(entry, "adapt", adapt)
    return calls


@pytest.mark.parametrize("momentum", [[], ["--momentum", "--momentum-every", 2, "--momentum-decay", 0.5]])
def test_an_interrupted_run_goes_on_to_the_same_records(classify, monkeypatch, momentum):
    flags = ["--limit", 6, "--tune", "norm", "--save-logits", *momentum]
    whole = classify(*flags, output="whole")
    for samples in (3, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            break_off_after(samples, patch)
            classify(*flags)
    with monkeypatch.context() as patch:
        calls = break_off_after(99, patch)
        again = classify(*flags, "--workers", 2)
    assert len(calls) == 1 and again.records() == whole.records()
    for name in ("zero_shot", "adapted"):
        assert torch.equal(again.logits()[name], whole.logits()[name])
    assert again.metrics["folder:blur"]["top1_gain"] == whole.metrics["folder:blur"]["top1_gain"]


def test_ctrl_c_says_that_the_same_command_goes_on(classify, monkeypatch, capsys):
    break_off_after(1, monkeypatch)
    with pytest.raises(SystemExit) as stop:
        run_main(lambda: classify("--limit", 3))
    assert stop.value.code == 130
    assert capsys.readouterr().err.endswith("\nstopped; the same command continues where it was\n")


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


def test_two_shards_have_the_records_of_one_process(classify, monkeypatch):
    whole = classify("--limit", 6, "--tune", "norm").records()
    monkeypatch.setattr(Shard, "wait", lambda shard: None)
    monkeypatch.setattr("rlcf.run.records.Records.finish", lambda records: records.written)
    for rank in range(2):
        monkeypatch.setattr(Shard, "from_environment", staticmethod(lambda rank=rank: Shard(rank, 2)))
        if rank == 1:  # both begin before either has records
            monkeypatch.setattr("rlcf.run.records.Records._read_all", lambda records: [])
        results = classify("--limit", 6, "--tune", "norm", output="sharded")
    parts = sorted((results.folder / "folder-blur").glob("records.part*.jsonl"))
    records = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    records = [{k: v for k, v in record.items() if k != "seconds"} for record in records]
    assert len(parts) == 2 and sorted(records, key=lambda record: record["index"]) == whole


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


# ---- flags ----

ENSEMBLE = ["--reward", "demo-reward", "demo-student", "demo-student", "--method", "kd"]
MOMENTUM = ["--momentum", "--momentum-every", "1", "--momentum-decay", "0.5"]
PROMPT = ["--tune", "prompt"]
CHANGES = {
    "student": ([], ["--student", "demo-reward"]),
    "reward": ([], ["--reward", "demo-student"]),
    "reward_weights": (ENSEMBLE, ["--reward-weights", "10", "5", "3"]),
    "round_reward_weights": ([*ENSEMBLE, "--reward-weights", "10", "5", "3"], ["--round-reward-weights"]),
    "steps": ([], ["--steps", "2"]),
    "lr": ([], ["--lr", "2e-3"]),
    "weight_decay": ([], ["--weight-decay", "0.5"]),
    "eps": ([], ["--eps", "1"]),
    "sample_k": ([], ["--sample-k", "5"]),
    "clipscore_weight": (["--eps", "0.1"], ["--clipscore-weight", "1"]),  # AdamW does not see a gradient's scale
    "divide_by_std": ([], ["--divide-by-std"]),
    "momentum": ([], MOMENTUM),
    "momentum_decay": (MOMENTUM, ["--momentum-decay", "0.9"]),
    "momentum_every": (MOMENTUM, ["--momentum-every", "2"]),
    "momentum_weight": (MOMENTUM, ["--momentum-weight", "0.5"]),
    "method": ([], ["--method", "tpt"]),
    "tune": ([], ["--tune", "norm"]),
    "views": ([], ["--views", "16"]),
    "selection": ([], ["--selection", "0.9"]),
    "entropy_weight": ([], ["--entropy-weight", "1"]),
    "atkd_scale": (["--method", "atkd"], ["--atkd-scale", "mean"]),
    "bn_prior": ([], ["--bn-prior", "16"]),
    "prompt": ([], ["--prompt", "a drawing of the"]),
    "context": (PROMPT, ["--context", "random"]),
    "n_ctx": ([*PROMPT, "--context", "random"], ["--n-ctx", "8"]),
    "templates": ([], ["--templates", "imagenet80"]),
    "precision": ([], ["--precision", "bf16"]),
    "seed": ([], ["--seed", "1"]),
}
CHOICES = {
    "baseline": ([], [["--baseline", b] for b in ("answers", "all", "none")]),
    "augment": ([], [["--augment", a] for a in ("crop", "augmix", "hard")]),
    "batchnorm": (["--tune", "norm"], [["--batchnorm", b] for b in ("batch", "frozen", "published-norm")]),
    "class_position": (PROMPT, [["--class-position", p] for p in ("end", "middle", "front")]),
}
SAME = {
    "class_chunk": (PROMPT, ["--class-chunk", "2"]),
    "episodes": (PROMPT, ["--episodes", "2"]),
    "views_on_device": ([], ["--views-on-device"]),
}
OWN_TESTS = {"data", "output", "device", "limit", "workers", "skip_bad_images", "clip_root", "datasets", "corruption"}
OWN_TESTS |= {"severity", "classnames", "save_logits", "select_precision", "draft_jpeg"}


def test_every_flag_is_tested():
    tested = CHANGES.keys() | CHOICES.keys() | SAME.keys() | OWN_TESTS
    assert tested == {spec.name for spec in dataclasses.fields(ClassificationConfig)}


@pytest.fixture(scope="module")
def answers(emoji, tmp_path_factory):
    """The adapted logits of a run of two images."""
    known = {}

    def ask(flags):
        if tuple(flags) not in known:
            output = tmp_path_factory.mktemp("flags")
            data = ["--data", str(emoji), "--datasets", "folder:blur", "--output", str(output)]
            data += ["--limit", "2", "--save-logits"]
            main([*data, "--student", "demo-student", "--reward", "demo-reward", *TINY_RUN, *flags])
            known[tuple(flags)] = Results(output).logits()["adapted"].numpy()
        return known[tuple(flags)]

    return ask


def differ(first, second):
    return np.abs(first - second).max() > 1e-5


@pytest.mark.parametrize("name", CHANGES)
def test_a_flag_changes_the_answers(answers, name):
    base, change = CHANGES[name]
    assert differ(answers(base), answers([*base, *change]))


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_of_a_flag_has_its_own_answers(answers, name):
    base, choices = CHOICES[name]
    found = [answers([*base, *choice]) for choice in choices]
    assert all(differ(a, b) for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize("name", SAME)
def test_a_flag_for_speed_leaves_the_answers(answers, name):
    base, change = SAME[name]
    np.testing.assert_allclose(answers([*base, *change]), answers(base), atol=1e-4)


def test_views_on_the_device_and_screening_are_asked_for_by_their_flags(answers, monkeypatch):
    rendered, screened = [], []
    render, shortlist = entry.PlannedViews.render, entry.shortlist
    monkeypatch.setattr(entry.PlannedViews, "render", lambda *a: rendered.append(1) or render(*a))
    monkeypatch.setattr(entry, "shortlist", lambda *a: screened.append(a[2]) or shortlist(*a))
    frozen = ["--batchnorm", "frozen", "--workers", "1"]
    answers([*frozen, "--views-on-device"])
    assert len(rendered) == 2 and not screened
    few = answers([*frozen, "--selection", "0.2", "--select-precision", "bf16"])
    assert len(rendered) == 2 and screened == [2, 2]  # twice the one that is kept
    np.testing.assert_allclose(few, answers([*frozen, "--selection", "0.2"]), atol=1e-3)


def test_groups_of_episodes_leave_the_records_and_an_unreadable_image_its_place(classify, emoji, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(emoji, data)
    bad = sorted((data / "blur").rglob("*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:200])
    flags = ["--data", data, "--tune", "norm", "--batchnorm", "frozen", "--skip-bad-images", "--limit", 7]
    one, three = (classify(*flags, "--episodes", n, output=str(n)).records() for n in (1, 3))
    kept = ("index", "id", "label", "status", "zero_shot", "adapted", "reason")
    assert [{k: r.get(k) for k in kept} for r in one] == [{k: r.get(k) for k in kept} for r in three]


def test_a_run_goes_on_with_other_groups_and_chunks(classify):
    flags = ["--tune", "prompt", "--limit", 4]
    first = classify(*flags, output="one")
    again = classify(*flags, "--episodes", 2, "--class-chunk", 3, output="one")
    assert again.records(seconds=True) == first.records(seconds=True)


def test_large_jpegs_are_decoded_smaller_when_asked(classify, tmp_path, monkeypatch):
    folder = tmp_path / "photos" / "shots"
    for name in EMOJI[:3]:
        (folder / name).mkdir(parents=True)
        picture = np.random.default_rng(0).integers(0, 256, (1000, 1400, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / name / "1.jpg")
    sizes = []
    make = entry.Views.__call__
    monkeypatch.setattr(entry.Views, "__call__", lambda v, image, i: sizes.append(image.size) or make(v, image, i))
    flags = ["--data", tmp_path / "photos", "--datasets", "folder:shots", "--limit", 1]
    classify(*flags)
    classify(*flags, "--draft-jpeg", output="draft")
    assert sizes == [(1400, 1000), (350, 250)]  # 64 px views need 227


def test_an_ensemble_of_weight_zero_is_the_other_model(answers):
    ensemble = ["--reward", "demo-reward", "demo-student", "--reward-weights", "1", "0"]
    np.testing.assert_allclose(answers(ensemble), answers([]), atol=1e-4)


def test_bf16_answers_are_near_those_of_fp32(answers):
    zero_shot = ["--method", "zeroshot"]
    np.testing.assert_allclose(answers([*zero_shot, "--precision", "bf16"]), answers(zero_shot), atol=0.5)


def test_the_seed_changes_the_views_and_not_the_zero_shot_answers(classify):
    runs = [classify("--tune", "norm", "--save-logits", "--seed", seed, output=str(seed)) for seed in (0, 1)]
    first, second = (run.logits() for run in runs)
    torch.testing.assert_close(first["zero_shot"], second["zero_shot"], atol=1e-4, rtol=0)
    assert (first["adapted"] - second["adapted"]).abs().amax(dim=1).min() > 1e-4


@pytest.mark.parametrize(("tune", "expected"), [("image-encoder", "a_photo_of_a"), ("prompt", "a photo of a")])
def test_reward_models_read_the_students_prompt(clip, tune, expected):
    config = ClassificationConfig(prompt="a_photo_of_a", tune=tune)
    rewards = make_rewards(config, [clip("vit")], ["dog", "sea lion"])
    assert torch.equal(rewards.class_features[0], class_features(clip("vit"), ["dog", "sea lion"], expected))


def test_clip_root_is_where_openais_names_are_looked_for(classify, checkpoint, plant, tmp_path):
    data = plant("ant/1.jpg", "sea_lion/1.jpg", "pizza/1.jpg")
    (tmp_path / "clips").mkdir()
    for name in ("ViT-B-16.pt", "ViT-L-14.pt"):
        (tmp_path / "clips" / name).symlink_to(checkpoint("vit"))
    flags = ["--data", data, "--datasets", "folder", "--clip-root", tmp_path / "clips"]
    classify(*flags, "--student", "ViT-B/16", "--reward", "ViT-L/14")
    direct = classify(*flags, "--student", checkpoint("vit"), "--reward", checkpoint("vit"), output="direct")
    assert direct.records("folder") == classify(*flags, "--student", "ViT-B/16", "--reward", "ViT-L/14").records(
        "folder"
    )


def test_corruption_and_severity_choose_the_images(classify, checkpoint, plant):
    data = plant("imagenet-c/fog/2/n01440764/a.JPEG", "imagenet-c/snow/5/n01443537/b.JPEG")
    flags = ["--data", data, "--datasets", "C", "--student", checkpoint("vit"), "--method", "zeroshot"]
    for corruption, severity, expected in (("fog", 2, "n01440764/a.JPEG"), ("snow", 5, "n01443537/b.JPEG")):
        chosen = [*flags, "--corruption", corruption, "--severity", severity]
        (record,) = classify(*chosen, output=corruption).records("C")
        assert record["id"] == expected and record["label"] == int(corruption == "snow")


def test_class_names_of_a_file_are_what_the_student_reads(classify, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(["car", "apple", *EMOJI[2:]]))
    plain = classify("--method", "zeroshot", "--save-logits")
    swapped = classify("--method", "zeroshot", "--save-logits", "--classnames", names, output="swapped")
    before, after = (results.logits()["zero_shot"] for results in (plain, swapped))
    torch.testing.assert_close(after, before[:, [1, 0, 2, 3, 4, 5]], atol=1e-4, rtol=0)


def test_a_coop_checkpoint_starts_the_context(classify, tmp_path):
    torch.save({"state_dict": {"ctx": torch.randn(4, 128) * 0.02}}, tmp_path / "coop.pt")
    flags = ["--tune", "prompt", "--method", "zeroshot", "--save-logits", "--context"]
    words = classify(*flags, "words").logits()["adapted"]
    coop = classify(*flags, tmp_path / "coop.pt", output="coop").logits()["adapted"]
    assert (words - coop).abs().max() > 0.1


@pytest.mark.parametrize("preset", sorted((ROOT / "classification" / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_is_read(preset):
    config = parse_config(ClassificationConfig, ["--config", str(preset)], "", "")
    assert config.method in preset.read_text() and config.student == "ViT-B/16"


def test_help_is_a_page_that_a_person_can_read(tmp_path):
    done = run_script("--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    text = done.stdout
    assert text.startswith("usage: main.py [--config FILE] [flags]\n") and max(map(len, text.splitlines())) <= 120
    for spec in dataclasses.fields(ClassificationConfig):
        assert f"  --{spec.name.replace('_', '-')}" in text and spec.metadata["help"].split()[0] in text
    for heading in ("run:", "data:", "models:", "method:", "prompt:", "adaptation:", "examples:"):
        assert f"\n{heading}\n" in text
    presets = re.findall(r"classification/configs/\S+\.yaml", text)
    assert len(presets) == 2 and all((ROOT / preset).is_file() for preset in presets)
    assert list(tmp_path.iterdir()) == []


# ---- bad input: one sentence, exit code 2 ----


@pytest.fixture
def told(classify, capsys):
    """The one line that a mistake ends with."""

    def ask(*flags):
        with pytest.raises(SystemExit) as stop:
            run_main(lambda: classify(*flags))
        assert stop.value.code == 2
        printed = capsys.readouterr()
        lines = printed.err.splitlines()
        assert lines[-1].startswith("error: ") and "Traceback" not in printed.err and printed.out == ""
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
        return lines[-1].removeprefix("error: ")

    return ask


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "/no/such"], "no data folder '/no/such'; give --data the folder that holds the datasets"),
        (["--data", ""], "no data folder ''; give --data the folder that holds the datasets"),
        (["--datasets", "imagenet"], "unknown dataset 'imagenet'; there are I, A, V, R, K, C, flower102, "),
        (["--datasets", "folder:fog"], "no folder EMOJI/fog for dataset folder:fog"),
        (["--datasets", "R"], "dataset R was not found; tried EMOJI/imagenet-r, EMOJI/imagenet-rendition/imagenet-r, "),
        (["--sample-k", "7"], "--sample-k 7 exceeds the 6 classes of folder:blur"),
        (["--selection", "0.1"], "--selection 0.1 of --views 8 keeps no view; raise one of them"),
        (["--selection", "0"], "--selection: 0 must be above 0"),
        (["--gpu", "3"], "no GPU 3: this machine has 0; use --device cpu"),
        (["--device", "tpu:0:0"], "unknown device 'tpu:0:0'; use auto, cpu or cuda:N"),
        (["--student", "ViT-B/61"], "unknown model 'ViT-B/61'; did you mean 'ViT-B/16'? "),
        (["--student", "no/such.pt"], "no checkpoint file no/such.pt"),
        (["--context", "random"], "--context random is for --tune prompt"),
        (
            ["--tune", "prompt", "--templates", "imagenet80"],
            "--templates imagenet80 has no prompt to tune; ",
        ),
        (["--tune", "prompt", "--bn-prior", "16"], "--bn-prior is for --tune image-encoder or norm"),
        (["--episodes", "2"], "--episodes is for a method that tunes the prompt or the normalisation layers; use 1"),
        (
            ["--episodes", "2", "--tune", "norm", "--momentum"],
            "--momentum carries weights from sample to ",
        ),
        (["--class-chunk", "2"], "--class-chunk is for a method that tunes the prompt; use --tune prompt"),
        (
            ["--views-on-device", "--augment", "hard"],
            "--views-on-device makes crops only; use --augment crop",
        ),
        (["--select-precision", "bf16", "--method", "zeroshot"], "--select-precision bf16 spares a more precise "),
        (["--select-precision", "bf16", "--precision", "bf16"], "--select-precision bf16 spares a more precise "),
        (["--select-precision", "bf16"], "--select-precision bf16 leaves out views whose BatchNorm statistics count; "),
        (["--batchnorm", "published-norm"], "--batchnorm published-norm is for --tune norm"),
        (["--batchnorm", "frozen", "--bn-prior", "16"], "--bn-prior and --batchnorm frozen exclude each other"),
        (["--reward-weights", "1", "2"], "--reward-weights has 2 numbers for 1 reward models"),
        (["--method", "ppo"], "--method: 'ppo' is not one of zeroshot, tpt, rlcf, kd, dkd, atkd"),
        (["--step", "2"], "unrecognized arguments: --step 2; --help lists the flags"),
        (["--classnames", "no-names.txt"], "there is no no-names.txt; it should hold one entry a line"),
        (["--prompt", "the essence of"], "demo-student knows the words of the emoji scenes only, not those of "),
    ],
)
def test_a_mistake_is_told_in_one_sentence(told, emoji, flags, message):
    assert told(*flags).startswith(message.replace("EMOJI", str(emoji)))


def test_a_zero_shot_context_and_templates_exclude_each_other(told):
    flags = ["--method", "zeroshot", "--tune", "prompt", "--context", "random", "--templates", "imagenet80"]
    assert told(*flags) == "--context random and --templates imagenet80 exclude each other"


def test_an_empty_class_folder_is_told(told, plant):
    data = plant("cat/1.jpg", "dog/", "owl/1.jpg")
    message = told("--data", data, "--datasets", "folder")
    assert message == f"class folder {data}/dog holds no image; fill it or delete it"


def test_a_text_file_named_jpg_is_told(told, plant):
    data = plant("cat/1.jpg", "dog/1.jpg", "owl/1.jpg")
    (data / "dog" / "1.jpg").write_text("no picture")
    message = told("--data", data, "--datasets", "folder")
    reason = "cannot be read as an image (cannot identify image file); mend it or pass --skip-bad-images"
    assert message == f"{data}/dog/1.jpg {reason}"


@pytest.mark.parametrize("flag", ["--student", "--reward"])
def test_a_checkpoint_that_is_no_clip_is_told(told, tmp_path, flag):
    file = tmp_path / "weights.pt"
    torch.save({"fc.weight": torch.ones(2, 2)}, file)
    assert told(flag, file).startswith(f"{file} is no CLIP checkpoint in OpenAI's layout; ")
    file.write_text("no weights")
    assert told(flag, file) == f"{file} is damaged or no weight file; download it again"


def test_a_coop_file_of_another_width_is_told(told, tmp_path):
    file = tmp_path / "coop.pth.tar"
    torch.save({"state_dict": {"ctx": torch.ones(4, 512)}}, file)
    message = told("--tune", "prompt", "--context", file)
    assert message.startswith(f"the CoOp context of {file} is 512 wide, the student's text tower 128; use the ")


def test_a_class_file_with_a_wrong_count_is_told(told, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("cat\ndog\n")
    assert told("--classnames", file).startswith(f"{file} holds 2 class names but there are 6 class folders; ")


def test_a_class_that_an_embedded_model_does_not_know_is_told(told, plant):
    data = plant("cat/1.jpg", "dog/1.jpg", "velociraptor/1.jpg")
    for tune in TUNES:
        message = told("--data", data, "--datasets", "folder", "--tune", tune)
        assert "velociraptor" in message and message.endswith("; use a CLIP")


def test_an_unknown_preset_key_is_told(told, tmp_path):
    file = tmp_path / "preset.yaml"
    file.write_text("sample_q: 3\n")
    assert told("--config", file) == f"{file}: unknown key 'sample_q'; did you mean 'sample_k'?"


@pytest.mark.parametrize("key", ["datasets", "reward"])
def test_a_preset_with_an_empty_list_is_told(tmp_path, key):
    file = tmp_path / "preset.yaml"
    file.write_text(f"{key}: []\n")
    with pytest.raises(UserError, match=f"{key} needs a value"):
        parse_config(ClassificationConfig, ["--config", str(file)], "", "")


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_an_output_that_cannot_be_written_is_told(told, tmp_path, place):
    (tmp_path / "file").write_text("")
    message = told("--output", tmp_path / place)
    assert message.startswith(f"cannot write to the run folder {tmp_path / place} (")


def test_a_student_that_is_not_finite_is_told(told, checkpoint, tmp_path, plant):
    weights = torch.load(checkpoint("vit"), weights_only=True)
    weights["visual.proj"][0, 0] = torch.nan
    torch.save(weights, tmp_path / "broken.pt")
    flags = ["--data", plant("cat/1.jpg", "dog/1.jpg"), "--datasets", "folder", "--student", tmp_path / "broken.pt"]
    assert "are not finite" in told(*flags, "--method", "zeroshot")


def test_one_class_is_no_choice(told, plant):
    data = plant("cat/1.jpg")
    assert told("--data", data, "--datasets", "folder", "--method", "dkd").startswith(
        f"{data} holds one class folder, cat"
    )


def test_the_script_tells_a_truncated_jpeg_on_a_line_of_its_own(tmp_path, plant):
    data = plant("cat/1.jpg", "dog/1.jpg", "owl/1.jpg")
    bad = data / "owl" / "1.jpg"
    bad.write_bytes(bad.read_bytes()[:-40])
    flags = ["--student", "demo-student", "--reward", "demo-reward", "--output", "run", *TINY_RUN]
    done = run_script("--data", data, "--datasets", "folder", *flags, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {bad} cannot be read as an image (image file is truncated")
    assert last.endswith("; mend it or pass --skip-bad-images")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--method", "tpt", "--entropy-weight", "1"], "--entropy-weight"),
        (["--divide-by-std", "--baseline", "none"], "--divide-by-std"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(flags, said):
    with pytest.raises(UserError, match=said):
        main(["--data", ".", *flags])
