import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from retrieval.config import RetrievalConfig
from retrieval.main import main
from retrieval.methods import METHODS
from rlcf.errors import UserError
from rlcf.metrics import best_rank, paired_bootstrap, top_indices
from rlcf.run.config import parse_config, read_preset
from rlcf.run.dealing import shuffled
from rlcf.run.shard import Shard
from tests.tools import ROOT, Results, break_off_after, in_processes, mistake

from .conftest import MODELS, RUN, SCENES, TEXTS


def run_command(*command, cwd, **environment):
    """A command as a user types it."""
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | environment
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=180)


# ---- what runs, and what it leaves ----


@pytest.mark.parametrize("tune", ["encoder", "norm"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_tunes_every_part_in_both_directions(retrieve, capsys, method, tune):
    results = retrieve("--method", method, "--tune", tune, "--limit", 3, "--lr", 1e-2, "--save-logits")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[0] for line in lines[:2]] == ["json:blur-i2t: n 3", "json:blur-t2i: n 3"]
    assert lines[2].startswith("json:blur: zero-shot mean recall ") and len(lines) == 3
    for direction in ("i2t", "t2i"):
        records = results.records(f"json-blur-{direction}", seconds=True)
        assert [r["status"] for r in records] == ["ok"] * 3 and all(r["seconds"] > 0 for r in records)
        scores = results.logits(f"json-blur-{direction}")
        moved = (scores["adapted"] - scores["zero_shot"]).abs().amax(dim=1) > 1e-3
        assert moved.tolist() == [method != "zeroshot"] * 3


@pytest.mark.parametrize(("direction", "n", "gallery"), [("i2t", SCENES, TEXTS), ("t2i", TEXTS, SCENES)])
def test_records_tell_the_ranking_of_every_query(retrieve, scenes, direction, n, gallery):
    results = retrieve("--direction", direction, "--method", "kd", "--save-logits")
    records = results.records(f"json-blur-{direction}", seconds=True)
    assert [r["index"] for r in records] == list(range(n))
    assert list(records[0]) == [
        "index",
        "id",
        *(["query"] if direction == "t2i" else []),
        "status",
        "targets",
        "zero_shot_rank",
        "zero_shot_top10",
        "zero_shot_confidence",
        "adapted_rank",
        "adapted_top10",
        "adapted_confidence",
        "zero_shot_found",
        "adapted_found",
        "names",
        "steps",
        "seconds",
    ]
    scores = results.logits(f"json-blur-{direction}")
    assert {matrix.shape for matrix in scores.values()} == {(n, gallery)}
    for record, *rows in zip(records, scores["zero_shot"], scores["adapted"], strict=True):
        image, _, place = record["id"].partition("#")
        number = int(Path(image).stem)
        assert (scenes / image).is_file()
        assert [list(step) for step in record["steps"]] == [["loss"]]
        own = [5 * number + i for i in range(5)] if direction == "i2t" else [number]
        assert record["targets"] == own and record["index"] == (
            number if direction == "i2t" else 5 * number + int(place)
        )
        for name, row in zip(("zero_shot", "adapted"), rows, strict=True):
            assert record[f"{name}_rank"] == best_rank(row, own) and record[f"{name}_top10"] == top_indices(row, 10)
    assert list(results.metrics) == [f"json:blur-{direction}"]


@pytest.mark.slow
def test_results_are_the_metrics_of_the_records(retrieve):
    results = retrieve("--datasets", "json:blur", "json:clean", "--seed", 3, "--limit", 20)
    whole = json.loads((results.folder / "results.json").read_text())
    assert list(whole["datasets"]) == [f"json:{s}{d}" for s in ("blur", "clean") for d in ("-i2t", "-t2i", "")]
    assert whole["seed"] == 3 and {"python", "torch"} <= whole["versions"].keys() and whole["command"]
    for style in ("blur", "clean"):
        expected = {"zero_shot": {}, "adapted": {}}
        for direction, prefix in (("i2t", "txt"), ("t2i", "img")):
            records = results.records(f"json-{style}-{direction}", seconds=True)
            metrics = whole["datasets"][f"json:{style}-{direction}"]
            hits = {}
            for name, recalls in expected.items():
                ranks = np.array([r[f"{name}_rank"] for r in records])
                hits[name] = ranks == 1
                recalls |= {f"{prefix}_r{k}": 100 * np.mean(ranks <= k) for k in (1, 5, 10)}
                recalls[f"{prefix}_r_mean"] = np.mean([recalls[f"{prefix}_r{k}"] for k in (1, 5, 10)])
                for key, value in metrics[name].items():
                    assert value == pytest.approx(recalls[key])
            groups = [r["index"] if direction == "i2t" else r["index"] // 5 for r in records]
            gain = [100 * v for v in paired_bootstrap(hits["zero_shot"], hits["adapted"], groups=groups)]
            assert [metrics[f"{prefix}_r1_gain"][key] for key in ("mean", "low", "high")] == pytest.approx(gain)
            assert (metrics["n"], metrics["unreadable"], metrics["non_finite"]) == (len(records), 0, 0)
            assert metrics["seconds_per_sample"] == pytest.approx(np.mean([r["seconds"] for r in records]))
            assert metrics["peak_memory_mb"] > 100
            assert metrics["truncated_texts"] == {"demo-student": 0, "demo-reward": 0}
        both = whole["datasets"][f"json:{style}"]
        assert both["n"] == {"i2t": SCENES, "t2i": 20}
        for name, recalls in expected.items():
            recalls["r_mean"] = (recalls["txt_r_mean"] + recalls["img_r_mean"]) / 2
            assert both[name] == pytest.approx(recalls)


def test_images_with_any_number_of_texts_are_answered_rightly(retrieve, scenes):
    """Clean scenes, which the student knows: each image finds one of its texts, each text its image."""
    listed = json.loads((scenes / "clean.json").read_text())
    for number, entry_ in enumerate(listed):
        entry_["caption"] = entry_["caption"][: 1 + number % 5]
    (scenes / "uneven.json").write_text(json.dumps(listed))
    results = retrieve("--datasets", "json:uneven", "--method", "zeroshot")
    assert results.metrics["json:uneven"]["n"] == {"i2t": SCENES, "t2i": 1 + 2 + 3 + 4 + 5 + 1 + 2 + 3}
    for direction in ("i2t", "t2i"):
        records = results.records(f"json-uneven-{direction}")
        assert np.mean([r["zero_shot_rank"] == 1 for r in records]) > 0.7


def test_the_run_folder_holds_the_resolved_config_and_a_log(retrieve):
    results = retrieve("--limit", 1, "--lr", "0.002", "--direction", "t2i")
    config = read_preset(RetrievalConfig, str(results.folder / "config.yaml"))
    assert config.keys() == {spec.name for spec in dataclasses.fields(RetrievalConfig)}
    assert (config["lr"], config["student"], config["sample_k"]) == (0.002, "demo-student", 5)
    assert (config["device"], config["precision"]) == ("cpu", "fp32")
    assert 'json:blur-t2i: {"n": 1' in (results.folder / "log.txt").read_text()
    assert sorted(file.name for file in results.folder.iterdir()) == [
        ".lock",
        "config.yaml",
        "features",
        "json-blur-t2i",
        "log.txt",
        "results.json",
    ]


@pytest.mark.slow
def test_one_direction_has_the_records_of_both(retrieve):
    flags = ["--limit", 3, "--momentum", "--momentum-every", 1, "--momentum-decay", 0.5]
    both = retrieve(*flags, output="both")
    for direction in ("i2t", "t2i"):
        alone = retrieve(*flags, "--direction", direction, output=direction)
        assert [r["adapted_top10"] for r in alone.records(f"json-blur-{direction}")] == [
            r["adapted_top10"] for r in both.records(f"json-blur-{direction}")
        ]


def test_limit_takes_the_first_of_the_seeds_order_and_keeps_the_gallery_whole(retrieve):
    results = retrieve("--limit", 3, "--save-logits")
    for direction, n, gallery in (("i2t", SCENES, TEXTS), ("t2i", TEXTS, SCENES)):
        assert [r["index"] for r in results.records(f"json-blur-{direction}")] == sorted(shuffled(n, 0, 3))
        scores = results.logits(f"json-blur-{direction}")["adapted"]
        assert scores.shape == (3, gallery)


@pytest.mark.parametrize("momentum", [[], ["--momentum", "--momentum-decay", "0.5", "--momentum-every", "1"]])
def test_a_trial_grows_with_its_limit_in_both_directions(retrieve, momentum):
    whole, grown = retrieve("--limit", 4, *momentum, output="whole"), retrieve("--limit", 2, *momentum)
    grown = retrieve("--limit", 4, *momentum)
    for direction in ("i2t", "t2i"):
        assert grown.records(f"json-blur-{direction}") == whole.records(f"json-blur-{direction}")
    assert grown.metrics["json:blur"]["n"] == whole.metrics["json:blur"]["n"]
    with pytest.raises(UserError, match="holds 4 samples and --limit 3 leaves out some of them"):
        retrieve("--limit", 3, *momentum)


def test_the_reward_model_is_asked_for_the_limited_queries_alone(retrieve):
    results = retrieve("--limit", 2, "--direction", "i2t")
    rows = {file.stem: len(load_file(file)["features"]) for file in (results.folder / "features").iterdir()}
    assert rows == {
        "json-blur-images-demo-reward": 2,
        "json-blur-texts-demo-reward": TEXTS,
        "json-blur-texts-demo-student": TEXTS,
    }


# ---- the same seed, the same records ----


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_workers(retrieve):
    flags = ["--limit", 4, "--direction", "i2t"]
    alone = retrieve(*flags)
    assert retrieve(*flags, "--workers", 2, output="workers").records() == alone.records()


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [[], ["--momentum", "--momentum-every", 2, "--momentum-decay", 0.5]])
def test_an_interrupted_run_goes_on_to_the_same_records_without_encoding_again(retrieve, monkeypatch, momentum):
    flags = ["--limit", 4, "--save-logits", *momentum]
    whole = retrieve(*flags, output="whole")
    for samples in (3, 2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            break_off_after(samples, patch)
            retrieve(*flags)
    with monkeypatch.context() as patch:
        calls = break_off_after(99, patch)
        patch.setattr("retrieval.features.encode_batches", None)
        patch.setattr("rlcf.clip.backbone.Backbone.encode_text", None)
        again = retrieve(*flags)
    assert len(calls) <= 4
    for direction in ("i2t", "t2i"):
        assert again.records(f"json-blur-{direction}") == whole.records(f"json-blur-{direction}")
        for name, matrix in again.logits(f"json-blur-{direction}").items():
            expected = whole.logits(f"json-blur-{direction}")[name]
            assert torch.equal(matrix, expected)


def test_a_finished_run_is_reported_again_without_adapting(retrieve, monkeypatch, capsys):
    before = retrieve("--limit", 2).records("json-blur-t2i")
    line = capsys.readouterr().out
    break_off_after(0, monkeypatch)
    assert retrieve("--limit", 2).records("json-blur-t2i") == before and capsys.readouterr().out == line


def test_a_list_that_changed_since_a_run_began_refuses_to_mix(retrieve, scenes):
    flags = ["--data", scenes, "--datasets", "json:changing", "--method", "zeroshot", "--limit", 1]
    listed = json.loads((scenes / "blur.json").read_text())
    (scenes / "changing.json").write_text(json.dumps(listed))
    retrieve(*flags)
    listed[0]["caption"][0] = "a dog above a cat"
    (scenes / "changing.json").write_text(json.dumps(listed))
    with pytest.raises(UserError, match=r"json-changing-i2t was begun with other texts than there are now; choose"):
        retrieve(*flags)


def test_a_changed_setting_refuses_to_mix_and_names_the_key(retrieve):
    retrieve("--limit", 1, "--method", "zeroshot")
    with pytest.raises(UserError, match=r"holds a run with another config: clean_text \(False -> True\)"):
        retrieve("--limit", 1, "--method", "zeroshot", "--clean-text")


def test_two_processes_have_the_records_and_the_features_of_one(retrieve, tmp_path, capfd):
    whole = retrieve("--limit", 4, output="whole")
    capfd.readouterr()
    assert in_processes(2, lambda: retrieve("--limit", 4, output="two")) == [0, 0]
    assert capfd.readouterr().out.count("json:blur-i2t: n 4") == 1
    for direction in ("i2t", "t2i"):
        assert Results(tmp_path / "two").records(f"json-blur-{direction}") == whole.records(f"json-blur-{direction}")
    for file in (whole.folder / "features").iterdir():
        assert (tmp_path / "two" / "features" / file.name).read_bytes() == file.read_bytes()


def test_momentum_refuses_shards(retrieve, monkeypatch):
    monkeypatch.setattr(Shard, "from_environment", staticmethod(lambda: Shard(0, 2)))
    with pytest.raises(UserError, match=r"--momentum .* cannot be sharded; start one process"):
        retrieve("--momentum")


def test_answers_that_are_not_finite_are_counted_and_stay_zero_shot(retrieve, capsys):
    results = retrieve("--limit", 2, "--lr", "1e30", "--steps", 2)
    for direction in ("i2t", "t2i"):
        for record in results.records(f"json-blur-{direction}"):
            assert record["status"] == "non-finite" and record["adapted_top10"] == record["zero_shot_top10"]
        assert results.metrics[f"json:blur-{direction}"]["non_finite"] == 2
    assert capsys.readouterr().out.count("2 kept zero-shot (not finite)") == 2


# ---- images and texts that do not fit ----


@pytest.fixture
def damaged(scenes, tmp_path):
    """A copy of the blurred scenes with one truncated picture."""
    root = tmp_path / "damaged"
    (root / "blur").mkdir(parents=True)
    (root / "blur.json").write_text((scenes / "blur.json").read_text())
    for file in (scenes / "blur").iterdir():
        (root / "blur" / file.name).write_bytes(file.read_bytes())
    (root / "blur" / "3.png").write_bytes((scenes / "blur" / "3.png").read_bytes()[:900])
    return root


@pytest.mark.parametrize("direction", ["i2t", "t2i"])
def test_a_damaged_image_stops_the_run(retrieve, damaged, direction):
    with pytest.raises(UserError, match=r"damaged/blur/3.png cannot be read as an image \(.*\); mend it or"):
        retrieve("--data", damaged, "--direction", direction)


def test_a_damaged_query_image_is_skipped_where_that_is_asked_for(retrieve, damaged, capsys):
    results = retrieve("--data", damaged, "--direction", "i2t", "--skip-bad-images")
    assert [r["status"] for r in results.records()] == [("unreadable" if i == 3 else "ok") for i in range(SCENES)]
    metrics = results.metrics["json:blur-i2t"]
    assert (metrics["n"], metrics["unreadable"]) == (SCENES - 1, 1)
    assert capsys.readouterr().out.endswith(", 1 unreadable\n")


def test_a_gallery_of_images_must_be_whole(retrieve, damaged):
    with pytest.raises(UserError, match=r"--skip-bad-images is for --direction i2t: t2i searches every image"):
        retrieve("--data", damaged, "--skip-bad-images")


def test_texts_longer_than_the_context_are_cut_counted_and_told(retrieve, write_list, capsys):
    long = "a dog above a cat and " * 12 + "a key"
    data = write_list([{"image": f"{i}.jpg", "caption": [long, "a dog above a cat"]} for i in range(2)])
    results = retrieve("--data", data, "--datasets", "json:list", "--method", "zeroshot")
    for direction in ("i2t", "t2i"):
        assert results.metrics[f"json:list-{direction}"]["truncated_texts"] == {"demo-student": 2}
    assert capsys.readouterr().out.count("2 texts longer than the context, cut") == 2


# ---- flags ----


ENSEMBLE = ["--reward", "demo-reward", "demo-student", "--method", "kd"]
MOMENTUM = ["--momentum", "--momentum-every", "1", "--momentum-decay", "0.5"]
CHANGES = {
    "student": ([], ["--student", "demo-reward"], {"i2t", "t2i"}),
    "reward": ([], ["--reward", "demo-student"], {"i2t", "t2i"}),
    "reward_weights": (ENSEMBLE, ["--reward-weights", "10", "3"], {"i2t", "t2i"}),
    "round_reward_weights": ([*ENSEMBLE, "--reward-weights", "10", "3"], ["--round-reward-weights"], {"i2t", "t2i"}),
    "steps": ([], ["--steps", "2"], {"i2t", "t2i"}),
    "lr": ([], ["--lr", "2e-3"], {"i2t", "t2i"}),
    "weight_decay": ([], ["--weight-decay", "0.5"], {"i2t", "t2i"}),
    "eps": ([], ["--eps", "1"], {"i2t", "t2i"}),
    "sample_k": ([], ["--sample-k", "3"], {"i2t", "t2i"}),
    "t2i_sample_k": ([], ["--t2i-sample-k", "3"], {"t2i"}),
    "clipscore_weight": (["--eps", "0.1"], ["--clipscore-weight", "1"], {"i2t", "t2i"}),
    "baseline": ([], ["--baseline", "none"], {"i2t", "t2i"}),
    "divide_by_std": (["--eps", "0.1"], ["--divide-by-std"], {"i2t", "t2i"}),
    "momentum": ([], MOMENTUM, {"i2t", "t2i"}),
    "momentum_decay": (MOMENTUM, ["--momentum-decay", "0.9"], {"i2t", "t2i"}),
    "momentum_every": (MOMENTUM, ["--momentum-every", "2"], {"i2t", "t2i"}),
    "momentum_weight": (MOMENTUM, ["--momentum-weight", "0.5"], {"i2t", "t2i"}),
    "method": ([], ["--method", "kd"], {"i2t", "t2i"}),
    "tune": ([], ["--tune", "norm"], {"i2t", "t2i"}),
    "tune_embeddings": ([], ["--tune-embeddings"], {"t2i"}),
    "candidates": (["--sample-k", "1"], ["--candidates", "both"], {"i2t", "t2i"}),
    "kl_weight": (["--steps", "2"], ["--kl-weight", "10"], {"i2t", "t2i"}),
    "answer": ([], ["--answer", "product"], {"i2t", "t2i"}),
    "precision": ([], ["--precision", "bf16"], {"i2t", "t2i"}),
}
OWN_TESTS = {"data", "output", "device", "limit", "workers", "skip_bad_images", "clip_root", "datasets", "seed"}
OWN_TESTS |= {"direction", "clean_text", "save_logits", "gate", "deterministic", "stop_when_settled"}
OWN_TESTS |= {"image_reading", "hf_config", "image_column", "caption_column"}


def test_every_flag_is_tested():
    assert CHANGES.keys() | OWN_TESTS == {spec.name for spec in dataclasses.fields(RetrievalConfig)}


@pytest.fixture(scope="module")
def scores(scenes, tmp_path_factory):
    """The adapted scores of a run of two queries a direction."""
    known = {}

    def ask(flags):
        if tuple(flags) not in known:
            output = tmp_path_factory.mktemp("flags")
            data = ["--data", str(scenes), "--datasets", "json:blur", "--output", str(output), "--limit", "2"]
            main([*data, *MODELS, *RUN, "--save-logits", *flags])
            known[tuple(flags)] = {
                direction: Results(output).logits(f"json-blur-{direction}")["adapted"] for direction in ("i2t", "t2i")
            }
        return known[tuple(flags)]

    return ask


@pytest.mark.parametrize("flag", CHANGES)
def test_every_flag_changes_what_it_is_for(scores, flag):
    around, change, where = CHANGES[flag]
    before, after = scores(around), scores([*around, *change])
    differs = {d for d in before if not torch.allclose(before[d], after[d], atol=1e-6, rtol=0)}
    assert differs == where


def test_cleaned_texts_are_what_is_encoded(retrieve, write_list):
    data = write_list([{"image": "a.jpg", "caption": ['A DOG: "above" (a cat)!']}])
    flags = ["--data", data, "--datasets", "json:list", "--method", "zeroshot", "--save-logits", "--direction", "t2i"]
    with pytest.raises(UserError, match="demo-student knows a few words only"):
        retrieve(*flags)
    clean = retrieve(*flags, "--clean-text", output="clean")
    data = write_list([{"image": "a.jpg", "caption": ["a dog above a cat"]}])
    plain = retrieve(*flags, output="plain")
    rows = [r.logits("json-list-t2i")["zero_shot"] for r in (clean, plain)]
    assert torch.equal(*rows)


REFUSED = [
    (["--sample-k", TEXTS + 1], rf"--sample-k {TEXTS + 1} of i2t exceeds the {TEXTS} texts of json:blur"),
    (["--sample-k", SCENES + 1], rf"--sample-k {SCENES + 1} of t2i exceeds the {SCENES} images of json:blur"),
    (["--t2i-sample-k", 99], rf"--sample-k 99 of t2i exceeds the {SCENES} images of json:blur"),
    (["--tune-embeddings", "--direction", "i2t"], r"--tune-embeddings is for --tune encoder and --direction t2i"),
    (["--tune-embeddings", "--tune", "norm"], r"--tune-embeddings is for --tune encoder"),
    (["--direction", "both ways"], r"--direction: 'both ways' is not one of i2t, t2i, both"),
    (["--datasets", "json:nothing"], r"dataset json:nothing was not found"),
    (["--reward", "py:some:thing"], r"--reward py:some:thing scores an image's texts; use --direction i2t"),
    (["--reward", "py:some:thing", "--direction", "t2i"], r"scores an image's texts; use --direction i2t"),
    (
        ["--reward", "py:some:thing", "--method", "kd"],
        r"--reward py:some:thing gives scores, not logits, which --method kd needs",
    ),
    (["--method", "zeroshot", "--momentum"], r"--momentum is for a method that adapts weights; zeroshot does not"),
    (["--reward-weights", 1, 2], r"--reward-weights has 2 numbers for 1 reward models"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_what_cannot_be_run_is_refused_in_a_sentence_before_a_model_is_loaded(retrieve, monkeypatch, flags, message):
    monkeypatch.setattr("rlcf.run.setup.load_clip", None)
    with pytest.raises(UserError, match=message):
        retrieve(*flags)


def test_a_mistake_ends_in_one_line_and_exit_code_2(retrieve, capsys):
    said = mistake(lambda: retrieve("--sample-k", 99), capsys)
    assert said == f"--sample-k 99 of i2t exceeds the {TEXTS} texts of json:blur; give {TEXTS} or fewer"


@pytest.mark.parametrize("preset", sorted((ROOT / "retrieval/configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_preset_is_read_and_names_its_launcher(preset):
    config = parse_config(RetrievalConfig, ["--config", str(preset)], "", "")
    launcher = next(line.split()[2] for line in preset.read_text().splitlines() if line.startswith("#   bash"))
    assert "experiment retrieval" in (ROOT / launcher).read_text()
    assert config.clean_text and config.direction == "both" and config.student == "ViT-B/16"
    if config.method == "rlcf":
        assert (config.steps, config.lr, config.eps) == (8, 1e-6, 1e-6)
        assert [way.sample_k for way in config.one_way] == [20 if config.datasets == ["coco"] else 16, 12]


@pytest.mark.slow
def test_a_launcher_runs_an_experiment_as_a_user_does(scenes, tmp_path):
    root = tmp_path / "root"
    images = root / "dataset/coco2014/val2014"
    images.mkdir(parents=True)
    listed = json.loads((scenes / "clean.json").read_text())
    for number, entry_ in enumerate(listed):
        Image.open(scenes / entry_["image"]).convert("RGB").save(images / f"{number}.jpg")
        entry_["image"] = f"val2014/{number}.jpg"
    (images.parent / "coco_karpathy_test.json").write_text(json.dumps(listed))
    models = ["--student", "demo-student", "--reward", "demo-reward", "demo-student", "--reward-weights", "3", "1"]
    settings = ["--sample-k", "5", "--t2i-sample-k", "3", "--limit", "2", "--momentum-every", "1"]
    command = ["bash", ROOT / "scripts/tta_coco_ret.sh", "cpu", "ensemble-momentum", *models, *settings]
    ran = run_command(*command, cwd=tmp_path, RLCF_ROOT=str(root), PYTHON=sys.executable)
    assert ran.returncode == 0, ran.stderr
    folder = root / "output/tta-coco-ret-ensemble-momentum"
    assert list(json.loads((folder / "results.json").read_text())["datasets"]) == ["coco-i2t", "coco-t2i", "coco"]
    assert read_preset(RetrievalConfig, str(folder / "config.yaml"))["momentum"] is True
