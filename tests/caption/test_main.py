import json
import sys

import pytest
from PIL import Image

from caption import evaluate
from caption.datasets import DOMAINS, NOCAPS
from clipscore.main import main as clipscore
from rlcf.adapt.episode import Episodes
from rlcf.errors import UserError
from tests.tools import Results, break_off_after, run_script


def test_records_hold_captions_before_and_after_and_the_candidates_with_their_rewards(caption):
    run = caption()
    records = run.records()
    assert [record["id"] for record in records] == [f"clean/{i}.png" for i in range(8)]
    for record in records:
        assert record["status"] == "ok" and len(record["references"]) == 5
        assert record["zero_shot"] == record["zero_shot"].lower() != ""
        assert len(record["steps"]) == 2
        for step in record["steps"]:
            assert len(step["candidates"]) == len(step["rewards"]) == 3
            mean = sum(step["rewards"]) / 3
            assert step["advantages"] == pytest.approx([reward - mean for reward in step["rewards"]], abs=1e-6)
            assert isinstance(step["loss"], float)
    results = run.metrics["json:clean"]
    mean = sum(record["adapted_reward"] for record in records) / 8
    assert results["adapted"]["reward"] == pytest.approx(mean)
    assert results["reward_gain"]["low"] <= results["reward_gain"]["mean"] <= results["reward_gain"]["high"]


def test_adaptation_raises_the_mean_reward(caption):
    models = ["--checkpoint", "demo-clipcap", "--language-model", "demo-lm", "--sample-k", "10", "--lr", "1e-4"]
    run = caption(*models, "--steps", "4", "--max-new-tokens", "20", "--limit", "4")
    metrics = run.metrics["json:clean"]
    assert metrics["adapted"]["reward"] > metrics["zero_shot"]["reward"] + 0.05
    assert metrics["reward_gain"]["mean"] == pytest.approx(
        metrics["adapted"]["reward"] - metrics["zero_shot"]["reward"], abs=1e-6
    )
    changed = sum(record["zero_shot"] != record["adapted"] for record in run.records())
    assert changed > 0 and metrics["changed_percent"] == 25 * changed


def test_zeroshot_captions_without_adaptation_and_asks_no_reward_model(caption, monkeypatch):
    monkeypatch.setattr(Episodes, "run", lambda *_: pytest.fail("adapted"))
    run = caption("--method", "zeroshot", "--reward", "no-such-model")
    for record in run.records():
        assert record["zero_shot"] == record["adapted"] and record["steps"] == [] and "adapted_reward" not in record
    assert "reward_gain" not in run.metrics["json:clean"]


def test_candidates_and_references_are_written_for_clipscore(caption):
    run = caption()
    folder, records = run.folder_of(), run.records()
    for file, key in (("candidates.json", "adapted"), ("candidates-zero-shot.json", "zero_shot")):
        assert json.loads((folder / file).read_text()) == {record["id"]: record[key] for record in records}
    assert json.loads((folder / "references.json").read_text()) == {r["id"]: r["references"] for r in records}


def test_a_folder_of_images_has_no_references(caption):
    folder = caption("--datasets", "folder:clean", "--method", "zeroshot").folder_of()
    assert len(json.loads((folder / "candidates.json").read_text())) == 8
    assert not (folder / "references.json").exists()


def test_nocaps_reports_each_domain(caption, data):
    (data / "nocaps" / "val").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i}.png", "domain": DOMAINS[i % 3]} for i in range(8)]
    for image in images:
        (data / "clean" / image["file_name"]).rename(data / "nocaps" / "val" / image["file_name"])
    texts = [{"image_id": i, "caption": "a dog"} for i in range(8)]
    (data / "nocaps" / NOCAPS).write_text(json.dumps({"images": images, "annotations": texts}))
    run = caption("--datasets", "nocaps", "nocaps-out-domain")
    folder, results = run.folder, run.metrics
    assert {domain: part["n"] for domain, part in results["nocaps"]["domains"].items()} == dict(
        zip(DOMAINS, (3, 3, 2), strict=True)
    )
    assert results["nocaps-out-domain"]["n"] == 2
    alone = json.loads((folder / "nocaps-out-domain" / "candidates.json").read_text())
    assert alone == json.loads((folder / "nocaps" / "out-domain" / "candidates.json").read_text())


@pytest.mark.parametrize("sampling", ["beam", "nucleus"])
def test_a_stopped_run_goes_on_and_ends_as_an_uninterrupted_one(sampling, caption, monkeypatch):
    whole = caption("--sampling", sampling, output="whole").records()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_off_after(3, patch)
        caption("--sampling", sampling)
    groups = break_off_after(None, monkeypatch)
    assert caption("--sampling", sampling).records() == whole and len(groups) == 5


def test_a_trial_grows_with_its_limit_and_its_scores_with_it(caption, loaded):
    flags = ["--images-at-once", "2", *EVALUATE]
    whole = caption(*flags, "--limit", "5", output="whole")
    caption(*flags, "--limit", "3")
    grown = caption(*flags, "--limit", "5")
    assert grown.records() == whole.records()
    assert grown.metrics["json:clean"]["adapted"] == whole.metrics["json:clean"]["adapted"]


def test_the_last_line_tells_the_scores_before_and_after(caption, loaded, capsys):
    flags = ["--limit", "4", *EVALUATE]
    for method in ("rlcf", "zeroshot"):
        results = caption(*flags, "--method", method, output=method).metrics["json:clean"]
        first, last = capsys.readouterr().out.splitlines()
        assert first.startswith("json:clean: n 4")
        for metric in ("BLEU-4", "ROUGE-L", "CIDEr", "CLIPScore", "RefCLIPScore"):
            before, after = (f"{100 * results[name][metric]:.1f}" for name in ("zero_shot", "adapted"))
            assert f"{metric} {before} -> {after} (" in last or (method == "zeroshot" and f"{metric} {before}" in last)
        assert last.endswith("; CLIPScore by demo-student") and "times 100" in last and "METEOR" not in last


def test_neither_order_nor_company_changes_what_is_drawn(caption):
    whole = caption("--sampling", "nucleus").records()
    some = caption("--sampling", "nucleus", "--limit", "3", output="some").records()
    assert len(some) == 3 and some == [whole[record["index"]] for record in some]


def test_a_changed_config_does_not_mix_with_a_run(caption):
    caption()
    with pytest.raises(UserError, match="another config: top_p"):
        caption("--top-p", "0.5")


def test_an_image_that_cannot_be_read_stops_or_is_recorded(caption, data):
    (data / "clean" / "3.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"3.png cannot be read .*--skip-bad-images"):
        caption(output="refused")
    run = caption("--skip-bad-images")
    assert run.metrics["json:clean"]["unreadable"] == 1
    assert "clean/3.png" not in json.loads((run.folder_of() / "candidates.json").read_text())


def test_a_momentum_buffer_moves_the_starting_weights(caption):
    plain = caption("--lr", "1e-1", output="plain").records()
    flags = ["--momentum", "--momentum-every", "1", "--momentum-decay", "0.1", "--lr", "1e-1"]
    moved = caption(*flags, output="moved").records()
    assert [r["zero_shot"] for r in plain] == [r["zero_shot"] for r in moved]
    assert plain != moved


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint", ""], "no captioner; give --checkpoint"),
        (["--checkpoint", "nowhere.pt"], "no captioner nowhere.pt; scripts/train_clipcap_coco.sh"),
        (["--datasets", "cocoa"], "unknown dataset 'cocoa'"),
        (["--method", "kd"], "'kd' is not one of zeroshot, rerank, rlcf"),
        (["--method", "none"], "'none' is not one of zeroshot, rerank, rlcf"),
        (["--method", "zeroshot", "--momentum"], "--momentum is for a method that adapts weights; zeroshot does not"),
        (["--reward", "py:os"], "--reward py:os names no function; write py:package.module:function"),
        (["--reward", "py:os:nothing"], "--reward py:os:nothing cannot be imported"),
        (["--episodes", "2"], "unrecognized arguments: --episodes 2"),
        (["--sampling", "greedy"], "'greedy' is not one of beam, nucleus"),
        (["--top-p", "0"], "0 must be above 0"),
    ],
)
def test_a_mistake_is_told(flags, told, caption):
    with pytest.raises(UserError, match=told):
        caption(*flags)


@pytest.fixture
def loaded(monkeypatch, tmp_path):
    """Finds no Java: quick. Returns the names of the CLIPs that are loaded to evaluate with."""
    names, load = [], evaluate.load_clip
    monkeypatch.setattr(evaluate, "load_clip", lambda name, *given: names.append(name) or load(name, *given))
    monkeypatch.setenv("PATH", str(tmp_path))
    return names


EVALUATE = ["--evaluate", "--evaluate-clip", "demo-student", "--evaluate-prefix", ""]


def test_evaluation_puts_the_scores_before_and_after_into_the_results(caption, loaded):
    results = caption(*EVALUATE).metrics["json:clean"]
    for name in ("zero_shot", "adapted"):
        assert {"reward", "BLEU-4", "CIDEr", "CLIPScore", "RefCLIPScore"} <= results[name].keys()
    assert {"CIDEr", "CLIPScore", "BLEU-4 of captions"} <= results["gains"].keys()
    gain = results["gains"]["CLIPScore"]["mean"]
    assert gain == pytest.approx(results["adapted"]["CLIPScore"] - results["zero_shot"]["CLIPScore"], abs=1e-5)


def test_the_evaluating_clip_is_loaded_once_a_run(caption, loaded):
    caption("--method", "zeroshot", "--datasets", "json:clean", "folder:clean", "--limit", "2", *EVALUATE)
    assert loaded == ["demo-student"]
    caption("--method", "zeroshot", "--limit", "2", output="plain")
    assert loaded == ["demo-student"]


def test_the_scores_are_those_of_the_clipscore_command(caption, loaded, data, tmp_path, capfd):
    run = caption("--limit", "4", *EVALUATE)
    folder, scores = run.folder_of(), tmp_path / "scores.json"
    flags = ["--references", folder / "references.json", "--clip", "demo-student", "--prefix", "", "--no-java"]
    flags += ["--output", scores, "--save-per-instance", tmp_path / "each.json", "--workers", "0", "--device", "cpu"]
    clipscore(list(map(str, [folder / "candidates.json", data, *flags])))
    ours, theirs = (json.loads(file.read_text()) for file in (folder / "scores.json", scores))
    assert ours.keys() == theirs.keys()
    assert all(ours[key] == theirs[key] for key in ours if key != "command")
    assert (folder / "each-scores.json").read_text() == (tmp_path / "each.json").read_text()
    assert "no Java runtime starts: METEOR is left out" in capfd.readouterr().err


def test_an_evaluation_that_refuses_is_told_and_loses_nothing(caption, loaded, tmp_path):
    with pytest.raises(UserError, match=r"the captions were made, but clipscore/main.py cannot score them: .*no-such"):
        caption("--method", "zeroshot", "--evaluate", "--evaluate-clip", "no-such")
    assert Results(tmp_path / "run").metrics["json:clean"]["n"] == 8
    assert "CIDEr" in caption("--method", "zeroshot", *EVALUATE).metrics["json:clean"]["adapted"]


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module of the working folder with reward functions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_rewards.py").write_text(
        "asked = []\n"
        "def length(images, texts):\n"
        "    asked.extend(images)\n"
        "    return [len(text) for text in texts]\n"
        "def nothing(images, texts):\n"
        "    return [None] * len(texts)\n"
        "def every_second(images, texts):\n"
        "    return [None if i % 2 else 1.0 + i for i in range(len(texts))]\n"
        "def broken(images, texts):\n"
        "    return 1 / 0\n"
    )
    yield
    sys.modules.pop("own_rewards", None)


def test_a_function_of_the_users_own_may_be_the_reward(caption, plugin):
    for record in caption("--reward", "py:own_rewards:length", "--limit", "3").records():
        assert record["adapted_reward"] == len(record["adapted"])
        for step in record["steps"]:
            assert step["rewards"] == [len(caption) for caption in step["candidates"]]
    assert {image.size for image in sys.modules["own_rewards"].asked} == {(64, 64)}


def test_captions_that_a_reward_leaves_out_have_none_and_do_not_count(caption, plugin):
    record = caption("--reward", "py:own_rewards:every_second", "--limit", "1").records()[0]
    assert (record["zero_shot_reward"], "adapted_reward" in record) == (1.0, False)
    step = record["steps"][0]
    assert step["rewards"] == [1.0, None, 3.0] and step["advantages"] == [-1.0, None, 1.0]


def test_a_run_without_any_reward_has_a_summary(caption, plugin):
    run = caption("--reward", "py:own_rewards:nothing", "--limit", "2")
    assert [record["status"] for record in run.records()] == ["ok", "ok"]
    assert "reward_gain" not in run.metrics["json:clean"]


def test_a_reward_function_that_fails_is_told(caption, plugin):
    with pytest.raises(UserError, match=r"--reward py:own_rewards:broken failed \(ZeroDivisionError"):
        caption("--reward", "py:own_rewards:broken")


def test_the_command_tells_a_mistake_in_a_line_and_exits_with_2(tmp_path, lm_folder, checkpoint, data):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (lm_folder("opt") / file).exists()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((lm_folder("opt") / "config.json").read_text())
    models = ["--checkpoint", checkpoint, "--language-model", bare, "--student", "demo-student"]
    where = ["--data", data, "--datasets", "json:clean", "--output", tmp_path / "run"]
    done = run_script("caption/main.py", *models, *where, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {bare} holds no tokenizer")


def test_a_picture_of_any_size_is_captioned(caption, data):
    Image.new("RGB", (300, 40)).save(data / "clean" / "0.png")
    assert len(caption("--method", "zeroshot").records()) == 8
