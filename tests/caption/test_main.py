import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from caption import main as task
from caption.captioner import Captioner
from caption.datasets import DOMAINS, NOCAPS
from caption.main import CaptionConfig, adapt, objective
from caption.reward import Rewards
from clipscore import main as evaluation
from rlcf.adapt.episode import Episodes
from rlcf.clip.backbone import load_clip
from rlcf.errors import UserError

from .conftest import read_records

ROOT = Path(__file__).resolve().parents[2]


def same(first, second):
    """Records without what the clock says."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in first] == [
        {k: v for k, v in r.items() if k != "seconds"} for r in second
    ]


def test_records_hold_captions_before_and_after_and_the_candidates_with_their_rewards(caption):
    folder = caption()
    records = read_records(folder / "json-clean")
    assert [record["id"] for record in records] == [f"clean/{i}.png" for i in range(8)]
    for record in records:
        assert record["status"] == "ok" and len(record["references"]) == 5
        assert record["zero_shot"] == record["zero_shot"].lower() != ""
        assert len(record["steps"]) == 2
        for step in record["steps"]:
            assert len(step["candidates"]) == len(step["rewards"]) == 3
    results = json.loads((folder / "results.json").read_text())["datasets"]["json:clean"]
    mean = sum(record["adapted_reward"] for record in records) / 8
    assert results["adapted"]["reward"] == pytest.approx(mean)
    assert results["reward_gain"]["low"] <= results["reward_gain"]["mean"] <= results["reward_gain"]["high"]


def test_adaptation_changes_captions_and_raises_their_reward(caption):
    folder = caption("--steps", "6", "--lr", "3e-2")
    records = read_records(folder / "json-clean")
    assert any(record["zero_shot"] != record["adapted"] for record in records)


def test_method_none_captions_without_adaptation_and_asks_no_reward_model(caption, monkeypatch):
    monkeypatch.setattr(Episodes, "run", lambda *_: pytest.fail("adapted"))
    records = read_records(caption("--method", "none", "--reward", "no-such-model") / "json-clean")
    assert all(record["zero_shot"] == record["adapted"] and "steps" not in record for record in records)


def test_candidates_and_references_are_written_for_clipscore(caption):
    folder = caption() / "json-clean"
    records = read_records(folder)
    for file, key in (("candidates.json", "adapted"), ("candidates-zero-shot.json", "zero_shot")):
        assert json.loads((folder / file).read_text()) == {record["id"]: record[key] for record in records}
    assert json.loads((folder / "references.json").read_text()) == {r["id"]: r["references"] for r in records}


def test_a_folder_of_images_has_no_references(caption):
    folder = caption("--datasets", "folder:clean", "--method", "none") / "folder-clean"
    assert len(json.loads((folder / "candidates.json").read_text())) == 8
    assert not (folder / "references.json").exists()


def test_nocaps_reports_each_domain(caption, data):
    (data / "nocaps" / "val").mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i}.png", "domain": DOMAINS[i % 3]} for i in range(8)]
    for image in images:
        (data / "clean" / image["file_name"]).rename(data / "nocaps" / "val" / image["file_name"])
    texts = [{"image_id": i, "caption": "a dog"} for i in range(8)]
    (data / "nocaps" / NOCAPS).write_text(json.dumps({"images": images, "annotations": texts}))
    folder = caption("--datasets", "nocaps", "nocaps-out-domain")
    results = json.loads((folder / "results.json").read_text())["datasets"]
    assert {domain: part["n"] for domain, part in results["nocaps"]["domains"].items()} == dict(
        zip(DOMAINS, (3, 3, 2), strict=True)
    )
    assert results["nocaps-out-domain"]["n"] == 2
    alone = json.loads((folder / "nocaps-out-domain" / "candidates.json").read_text())
    assert alone == json.loads((folder / "nocaps" / "out-domain" / "candidates.json").read_text())


@pytest.mark.parametrize("sampling", ["beam", "nucleus"])
def test_a_stopped_run_goes_on_and_ends_as_an_uninterrupted_one(sampling, caption, monkeypatch):
    whole = read_records(caption("--sampling", sampling, output="whole") / "json-clean")
    calls, episode = [], task.adapt

    def stopping(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return episode(*given)

    monkeypatch.setattr(task, "adapt", stopping)
    with pytest.raises(KeyboardInterrupt):
        caption("--sampling", sampling)
    again = read_records(caption("--sampling", sampling) / "json-clean")
    assert len(calls) == 9 and same(again, whole)


def test_neither_order_nor_company_changes_what_is_drawn(caption):
    whole = read_records(caption("--sampling", "nucleus") / "json-clean")
    some = read_records(caption("--sampling", "nucleus", "--limit", "3", output="some") / "json-clean")
    assert len(some) == 3 and same(some, [whole[record["index"]] for record in some])


def test_a_changed_config_does_not_mix_with_a_run(caption):
    caption()
    with pytest.raises(UserError, match="another config: top_p"):
        caption("--top-p", "0.5")


def test_an_image_that_cannot_be_read_stops_or_is_recorded(caption, data):
    (data / "clean" / "3.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"3.png cannot be read .*--skip-bad-images"):
        caption(output="refused")
    folder = caption("--skip-bad-images")
    assert json.loads((folder / "results.json").read_text())["datasets"]["json:clean"]["unreadable"] == 1
    assert "clean/3.png" not in json.loads((folder / "json-clean" / "candidates.json").read_text())


@pytest.fixture
def episode(captioner):
    """Adapts to a random image with these settings; returns the outcome."""
    view = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    rewards = Rewards([load_clip("demo-reward")], [1.0])

    def run(**settings):
        small = {"checkpoint": "tiny", "sample_k": 3, "steps": 2, "lr": 1e-2, "max_new_tokens": 5, "beams": 2}
        config = CaptionConfig(**{**small, **settings})
        episodes = Episodes.from_config(config, captioner.tuned, captioner.buffers, "fp32")
        return adapt(config, captioner, rewards, episodes, [(0, view)])[0]

    return run


def test_weights_are_put_back_and_the_language_model_is_never_touched(episode, captioner):
    before = {name: value.clone() for name, value in captioner.mappers[0].state_dict().items()}
    frozen = {name: value.clone() for name, value in captioner.lm.model.state_dict().items()}
    episode()
    assert all(torch.equal(value, captioner.mappers[0].state_dict()[name]) for name, value in before.items())
    assert all(torch.equal(value, captioner.lm.model.state_dict()[name]) for name, value in frozen.items())
    assert not any(p.requires_grad or p.grad is not None for p in captioner.lm.model.parameters())
    assert all(p.requires_grad for p in captioner.mappers[0].parameters())


def test_an_episode_that_is_not_finite_keeps_the_caption_before(episode, monkeypatch):
    monkeypatch.setattr(task, "objective", lambda likelihood, advantage: likelihood.sum() * torch.nan)
    outcome = episode()
    assert not outcome.finite and outcome.adapted == outcome.zero_shot


def test_weights_that_blow_up_keep_the_caption_before(episode):
    outcome = episode(lr=1e30, steps=3)
    assert not outcome.finite and outcome.adapted == outcome.zero_shot


def test_padding_counts_only_when_asked_for(captioner):
    texts = ["a dog", "a cat to the left of an owl"]
    prefix = captioner.prefix(torch.randn(1, 128)).detach()
    alone = [captioner.log_likelihood(prefix, [[text]])[0, 0] for text in texts]
    (together,) = captioner.log_likelihood(prefix, [texts])
    torch.testing.assert_close(together, torch.stack(alone), atol=2e-5, rtol=1e-4)
    (padded,) = captioner.log_likelihood(prefix, [texts], score_padding=True)
    torch.testing.assert_close(padded[1], alone[1], atol=2e-5, rtol=1e-4)
    assert abs(padded[0] - alone[0]) > 1e-3


def test_reinforce_makes_a_caption_with_a_high_reward_more_likely(captioner):
    texts, features = ["a dog above an owl", "a cat"], torch.nn.functional.normalize(torch.randn(1, 128), dim=-1)
    advantage = torch.tensor([0.5, -0.5])
    optimiser = torch.optim.SGD(captioner.tuned.values(), lr=1e-2)
    before = captioner.log_likelihood(captioner.prefix(features), [texts])[0]
    objective(before, advantage).backward()
    optimiser.step()
    with torch.no_grad():
        after = captioner.log_likelihood(captioner.prefix(features), [texts])[0]
    assert (after[0] - after[1]) > (before[0] - before[1])


def test_a_momentum_buffer_moves_the_starting_weights(caption):
    plain = read_records(caption("--lr", "1e-1", output="plain") / "json-clean")
    flags = ["--momentum", "--momentum-every", "1", "--momentum-decay", "0.1", "--lr", "1e-1"]
    moved = read_records(caption(*flags, output="moved") / "json-clean")
    assert [r["zero_shot"] for r in plain] == [r["zero_shot"] for r in moved]
    assert not same(plain, moved)


def test_features_of_another_width_than_the_mapper_are_told(captioner):
    tiny = captioner.mappers[0]
    tiny.feature_width = 64
    with pytest.raises(
        UserError, match=r"features of demo-student are 128 wide, the mapper takes 64; give the --student .*\(a CLIP\)"
    ):
        Captioner(captioner.clip, tiny, captioner.lm, "a CLIP").encode(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--checkpoint", ""], "no captioner; give --checkpoint"),
        (["--checkpoint", "nowhere.pt"], "no weight file nowhere.pt"),
        (["--datasets", "cocoa"], "unknown dataset 'cocoa'"),
        (["--method", "kd"], "'kd' is not one of none, rlcf"),
        (["--sampling", "greedy"], "'greedy' is not one of beam, nucleus"),
        (["--top-p", "0"], "0 must be above 0"),
    ],
)
def test_a_mistake_is_told(flags, told, caption):
    with pytest.raises(UserError, match=told):
        caption(*flags)


@pytest.fixture
def clipscore(monkeypatch, tmp_path):
    """The evaluation finds no Java: quick. Returns the arguments that it was called with."""
    called = []
    run = evaluation.main
    monkeypatch.setattr(evaluation, "main", lambda arguments: called.append(arguments) or run(arguments))
    monkeypatch.setenv("PATH", str(tmp_path))
    return called


def test_evaluation_puts_the_scores_before_and_after_into_the_results(caption, clipscore):
    folder = caption("--evaluate", "--evaluate-clip", "demo-student", "--evaluate-prefix", "")
    results = json.loads((folder / "results.json").read_text())["datasets"]["json:clean"]
    for name in ("zero_shot", "adapted"):
        assert {"reward", "BLEU-4", "CIDEr", "CLIPScore", "RefCLIPScore"} <= results[name].keys()
    assert {"CIDEr", "CLIPScore", "BLEU-4 of captions"} <= results["gains"].keys()
    gain = results["gains"]["CLIPScore"]["mean"]
    assert gain == pytest.approx(results["adapted"]["CLIPScore"] - results["zero_shot"]["CLIPScore"], abs=1e-5)
    assert len(clipscore) == 2


def test_an_evaluation_that_refuses_is_told_and_loses_nothing(caption, clipscore, tmp_path):
    with pytest.raises(UserError, match=r"the captions were made, but clipscore/main.py cannot score them: .*no-such"):
        caption("--method", "none", "--evaluate", "--evaluate-clip", "no-such")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["datasets"]["json:clean"]["n"] == 8
    folder = caption("--method", "none", "--evaluate", "--evaluate-clip", "demo-student", "--evaluate-prefix", "")
    results = json.loads((folder / "results.json").read_text())["datasets"]["json:clean"]
    assert "CIDEr" in results["adapted"]


def test_the_command_tells_a_mistake_in_a_line_and_exits_with_2(tmp_path, lm_folder, checkpoint, data):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (lm_folder("opt") / file).exists()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((lm_folder("opt") / "config.json").read_text())
    command = [
        sys.executable,
        str(ROOT / "caption" / "main.py"),
        "--checkpoint",
        str(checkpoint),
        "--language-model",
        str(bare),
    ]
    command += [
        "--student",
        "demo-student",
        "--data",
        str(data),
        "--datasets",
        "json:clean",
        "--output",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: {bare} holds no tokenizer")


def test_a_picture_of_any_size_is_captioned(caption, data):
    Image.new("RGB", (300, 40)).save(data / "clean" / "0.png")
    assert len(read_records(caption("--method", "none", "--limit", "8") / "json-clean")) == 8
