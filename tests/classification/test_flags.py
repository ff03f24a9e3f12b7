"""Each flag changes what it says, and those for speed leave the answers."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from classification import clip_model
from classification.classifier import make_rewards
from classification.clip_model import class_features
from classification.config import ClassificationConfig
from classification.main import main
from rlcf.adapt.views import PlannedViews, Views
from rlcf.errors import UserError
from rlcf.run.config import parse_config
from rlcf.run.setup import Models
from tests.tools import ROOT, Results, run_script

from .conftest import EMOJI, TINY_RUN

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
    "dispersion_weight": (["--method", "ctpt", *PROMPT], ["--dispersion-weight", "0"]),
    "candidates": ([], ["--candidates", "both"]),
    "learn_from_centre": ([], ["--learn-from-centre"]),
    "kl_weight": (["--steps", "2"], ["--kl-weight", "10"]),
    "clip_ratio": (["--steps", "3", "--lr", "1e-2"], ["--clip-ratio", "0.01"]),
    "gate": ([], ["--gate", "agree"]),
    "voter": (["--method", "zero"], ["--voter", "reward"]),
    "mta_lambda_y": (["--method", "mta"], ["--mta-lambda-y", "2"]),
    "mta_lambda_q": (["--method", "mta"], ["--mta-lambda-q", "0"]),
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
    "pool": (["--method", "views"], [["--pool", p] for p in ("probabilities", "features", "centre")]),
    "combine": (["--method", "ensemble"], [["--combine", c] for c in ("product", "mean")]),
    "answer": (["--lr", "1e-3"], [["--answer", a] for a in ("adapted", "product", "mean")]),
    "class_position": (PROMPT, [["--class-position", p] for p in ("end", "middle", "front")]),
}
SAME = {
    "class_chunk": (PROMPT, ["--class-chunk", "2"]),
    "images_at_once": (PROMPT, ["--images-at-once", "2"]),
    "views_on_device": ([], ["--views-on-device"]),
    "deterministic": ([], ["--deterministic"]),
}
OWN_TESTS = {"data", "output", "device", "limit", "workers", "skip_bad_images", "clip_root", "datasets", "corruption"}
OWN_TESTS |= {
    "image_reading",
    "hf_config",
    "image_column",
    "label_column",
    "severity",
    "classnames",
    "save_logits",
    "select_precision",
    "draft_jpeg",
    "published_ties",
    "stop_when_settled",
}


@pytest.mark.parametrize(("tune", "rate"), [("prompt", 7e-3), ("image-encoder", 1e-5), ("norm", 1e-5)])
def test_the_learning_rate_is_by_default_that_of_what_is_tuned(tune, rate):
    assert parse_config(ClassificationConfig, ["--tune", tune], "", "").lr == rate
    assert parse_config(ClassificationConfig, ["--tune", tune, "--lr", "3e-4"], "", "").lr == 3e-4


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
    return not np.allclose(first, second, atol=1e-5, rtol=0)  # votes have logits of -inf


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
    render, features = PlannedViews.render, clip_model.screening_features
    monkeypatch.setattr(PlannedViews, "render", lambda *a: rendered.append(1) or render(*a))
    monkeypatch.setattr(clip_model, "screening_features", lambda *a: screened.append(1) or features(*a))
    frozen = ["--batchnorm", "frozen", "--workers", "1"]
    answers([*frozen, "--views-on-device"])
    assert len(rendered) == 2 and not screened
    few = answers([*frozen, "--selection", "0.2", "--select-precision", "bf16"])
    assert len(rendered) == 2 and len(screened) == 2
    np.testing.assert_allclose(few, answers([*frozen, "--selection", "0.2"]), atol=1e-3)


def test_groups_of_episodes_leave_the_records_and_an_unreadable_image_its_place(classify, emoji, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(emoji, data)
    bad = sorted((data / "blur").rglob("*.png"))[3]
    bad.write_bytes(bad.read_bytes()[:200])
    flags = ["--data", data, "--tune", "norm", "--batchnorm", "frozen", "--skip-bad-images", "--limit", 7]
    one, three = (classify(*flags, "--images-at-once", n, output=str(n)).records() for n in (1, 3))
    kept = ("index", "id", "label", "status", "zero_shot", "adapted", "reason")
    assert [{k: r.get(k) for k in kept} for r in one] == [{k: r.get(k) for k in kept} for r in three]


def test_a_run_goes_on_with_other_chunks_and_keeps_its_groups(classify):
    flags = ["--tune", "prompt", "--limit", 4]
    first = classify(*flags, output="one")
    again = classify(*flags, "--class-chunk", 3, output="one")
    assert again.records(seconds=True) == first.records(seconds=True)
    with pytest.raises(UserError, match=r"another config: images_at_once \(1 -> 2\)"):
        classify(*flags, "--images-at-once", 2, output="one")


def test_large_jpegs_are_decoded_smaller_when_asked(classify, tmp_path, monkeypatch):
    folder = tmp_path / "photos" / "shots"
    for name in EMOJI[:3]:
        (folder / name).mkdir(parents=True)
        picture = np.random.default_rng(0).integers(0, 256, (1000, 1400, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / name / "1.jpg")
    sizes = []
    make = Views.__call__
    monkeypatch.setattr(Views, "__call__", lambda v, image, i: sizes.append(image.size) or make(v, image, i))
    flags = ["--data", tmp_path / "photos", "--datasets", "folder:shots", "--limit", 1]
    classify(*flags)
    classify(*flags, "--draft-jpeg", output="draft")
    assert sizes == [(1400, 1000), (350, 250)]  # 64 px views need 227


def test_an_ensemble_with_nearly_all_weight_on_one_model_is_that_model(answers):
    ensemble = ["--reward", "demo-reward", "demo-student", "--reward-weights", "1e9", "1"]
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
    rewards = make_rewards(config, Models(clip("resnet"), [clip("vit")]), ["dog", "sea lion"])
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
    called = ["car", "apple", *EMOJI[2:]]
    names.write_text("".join(f"{folder}\t{name}\n" for folder, name in zip(EMOJI, called, strict=True)))
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
    assert f"method: {config.method}\n" in preset.read_text() and config.student == "ViT-B/16"


@pytest.mark.slow
def test_the_script_tells_its_flags_on_a_page_and_does_nothing_else(tmp_path):
    done = run_script("classification/main.py", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    text = done.stdout
    assert text.startswith("usage: main.py [--config FILE] [flags]\n") and max(map(len, text.splitlines())) <= 120
    for group in {spec.metadata["group"] for spec in dataclasses.fields(ClassificationConfig)} | {"examples"}:
        assert text.count(f"\n{group}:\n") == 1
