"""Classification against the authors' numbers, through the project's own functions (README.md tells the tolerances)."""

import numpy as np
import pytest
import torch

from classification import Classifier
from classification.clip_model import EncoderPolicy, FrozenPolicy, PromptPolicy, class_features
from classification.config import ClassificationConfig
from classification.context import initial_context
from classification.reward import Rewards
from rlcf.adapt.objectives import text_dispersion
from rlcf.run.setup import Models

from .conftest import twice

UNDERSCORES = "a_photo_of_a"  # how the published image-encoder runs write their prompts
ENSEMBLE = ["rewardB", "rewardRN", "rewardA"]  # ViT-L/14@336px, RN50x64, ViT-L/14

LOOSER = {
    "c_tpt_prompt": 4.5e-4,
    "d_rlcf_encoder_lr0.001": 5e-4,
    "d_rlcf_encoder_minent_lr0.001": 7e-4,
    "d_rlcf_encoder_RN_lr0.001": 5e-2,
    "d_rlcf_encoder_RN_norm_lr0.001": 5.5e-3,
    "e_tpt_encoder_lr0.001": 1.1e-3,
    "e_kd_encoder_lr0.001": 1.5e-3,
    "e_atkd_encoder_lr0.001": 3e-4,
    "f_single_k1": 2.2e-3,
    "f_single_noprocess": 2e-4,
    "f_single_pb0_amp0": 3.5e-4,
    "f_single_pb0_amp1": 2e-4,
    "f_single_pb1_amp0": 3e-4,
    "f_single_pb1_amp1": 5e-4,
    "f_ensemble_w0_pb0_amp0": 2e-4,
    "f_ensemble_w0_pb0_amp1": 2e-4,
    "f_ensemble_w0_pb1_amp0": 4e-4,
    "f_ensemble_w0_pb1_amp1": 3e-4,
    "f_ensemble_w1_pb0_amp0": 3.5e-4,
    "f_ensemble_w1_pb0_amp1": 2e-4,
    "f_ensemble_w1_pb1_amp0": 2.5e-4,
    "f_ensemble_w1_pb1_amp1": 4e-4,
    "g_momentum_w0.5": 7.5e-4,
    "g_momentum_w1": 5e-4,
}
CTPT = [("lambda20_1step", 20.0, 1), ("lambda50_1step", 50.0, 1), ("lambda20_3steps", 20.0, 3)]
LOOSER_LOSSES = {"d_rlcf_encoder_RN_lr0.001": 1.6e-3, "e_kd_encoder_lr0.001": 6e-4}


def encoder(method="rlcf", lr=1e-3, **settings):
    return {"method": method, "lr": lr, **settings}


RUNS = {
    "b_rlcf_prompt": {"method": "rlcf", "tune": "prompt", "lr": 7e-3},
    "c_tpt_prompt": {"method": "tpt", "tune": "prompt", "lr": 7e-3, "weight_decay": 1e-2},
    "c_tpt_prompt_1step_lr5e-3": {"method": "tpt", "tune": "prompt", "lr": 5e-3, "weight_decay": 1e-2, "steps": 1},
    "d_rlcf_encoder_lr0.001": encoder(),
    "d_rlcf_encoder_lr1e-05": encoder(lr=1e-5),
    "d_rlcf_encoder_minent_lr0.001": encoder(entropy_weight=0.1),
    "d_rlcf_encoder_norm_lr0.001": encoder(tune="norm"),
    "d_rlcf_encoder_RN_lr0.001": encoder(),
    "d_rlcf_encoder_RN_norm_lr0.001": encoder(tune="norm", batchnorm="published-norm"),
    **{f"e_{m}_encoder_lr{lr}": encoder(m, float(lr)) for m in ("tpt", "kd", "dkd") for lr in ("0.001", "1e-05")},
    **{f"e_atkd_encoder_lr{lr}": encoder("atkd", float(lr), atkd_scale="mean") for lr in ("0.001", "1e-05")},
    "f_single_k1": encoder(sample_k=1),
    "f_single_noprocess": encoder(baseline="none"),
    **{
        f"f_{models}_pb{pb}_amp{amp}": encoder(baseline=["answers", "all"][pb], divide_by_std=bool(amp))
        for models in ("single", "ensemble_w0", "ensemble_w1")
        for pb in (0, 1)
        for amp in (0, 1)
    },
    **{
        f"g_momentum_w{w}": encoder(momentum=True, momentum_decay=0.9, momentum_every=4, momentum_weight=float(w))
        for w in ("0.5", "1")
    },
}


def make_classifier(name, clip, classnames):
    prompt = "a photo of a" if RUNS[name].get("tune") == "prompt" else UNDERSCORES
    models = ENSEMBLE if "ensemble" in name else ["rewardA"]
    weights = {"reward_weights": [10.0, 3.0, 5.0], "round_reward_weights": True} if "_w1_" in name else {}
    config = ClassificationConfig(prompt=prompt, reward=models, **weights, **RUNS[name])
    config.check()
    student = clip("studentRN" if "_RN_" in name else "student")
    rewards = [clip(model) for model in models] if config.asks_rewards else []
    return Classifier.of(config, Models(student, rewards), classnames)


def per_step(outcomes, member):
    """A member of the trace, stacked over the steps of all episodes."""
    return np.stack([np.ravel(getattr(step, member)) for outcome in outcomes for step in outcome.trace])


@pytest.mark.parametrize("name", RUNS)
def test_adaptation_equals_the_authors(name, golden, clip, views, classnames):
    expected, classifier = golden(name), make_classifier(name, clip, classnames)
    config, outcomes = classifier.config, []
    for sample, logits in enumerate(expected["final_logits"][:, 0]):
        inputs = twice(views[sample]) if "_RN_" in name else views[sample]
        outcomes += classifier.adapt([(sample, inputs)])
        np.testing.assert_allclose(outcomes[-1].after, logits, atol=LOOSER.get(name, 1e-4), rtol=0)

    assert np.array_equal([outcome.trace[0].views for outcome in outcomes], expected["selected_idx"])
    losses = per_step(outcomes, "loss").reshape(-1, config.steps)
    np.testing.assert_allclose(losses, expected["loss"], atol=LOOSER_LOSSES.get(name, 5e-5), rtol=1e-5)
    np.testing.assert_allclose(losses[:, 0], expected["loss"][:, 0], atol=2e-5, rtol=1e-5)
    if config.method == "rlcf":
        room = 1e-4 if config.divide_by_std else 1e-5
        assert np.array_equal(per_step(outcomes, "answers"), expected["class_index"])
        np.testing.assert_allclose(per_step(outcomes, "rewards"), expected["clip_score"], atol=room, rtol=0)
        np.testing.assert_allclose(per_step(outcomes, "advantages"), expected["rewards"], atol=room, rtol=0)


@pytest.mark.parametrize(("case", "weight", "steps"), CTPT)
def test_ctpt_equals_the_authors(case, weight, steps, golden, clip, views, classnames):
    expected = golden("m_ctpt_prompt")
    config = ClassificationConfig(
        method="ctpt", tune="prompt", lr=5e-3, weight_decay=1e-2, steps=steps, dispersion_weight=weight
    )
    config.check()
    classifier = Classifier.of(config, Models(clip("student"), []), classnames)
    policy, tuned = classifier.policy, []
    answer = policy.answer

    def with_snapshot(features):
        tuned.append((policy.context[0].clone(), policy.classes().detach()[0]))
        return answer(features)

    policy.answer = with_snapshot
    for sample in range(3):
        (outcome,) = classifier.adapt([(sample, views[sample])])
        context, classes = tuned[-1]
        np.testing.assert_allclose(outcome.after, expected[f"{case}_final_logits"][sample, 0], atol=1e-4, rtol=0)
        np.testing.assert_allclose(context, expected[f"{case}_final_ctx"][sample], atol=1e-5, rtol=0)
        np.testing.assert_allclose(text_dispersion(classes), expected[f"{case}_dispersion_after"][sample], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in RUNS if name[0] in "de" and "_RN_" not in name])
def test_tuned_image_tower_equals_the_authors(name, golden, clip, views, classnames):
    expected = {key[7:]: value for key, value in golden(name).items() if key.startswith("tuned0/")}
    classifier = make_classifier(name, clip, classnames)
    policy, adapted = classifier.policy, {}
    answer, before = policy.answer, {key: value.clone() for key, value in policy.visual.state_dict().items()}

    def with_snapshot(pixels):
        adapted.update({key: value.clone() for key, value in policy.visual.state_dict().items()})
        return answer(pixels)

    policy.answer = with_snapshot
    classifier.adapt([(0, views[0])])
    for key, value in expected.items():
        # Adam moves a weight by up to lr a step, however small its gradient: rounding shows where that is near 0.
        np.testing.assert_allclose(adapted[key], value, atol=3 * classifier.config.lr, rtol=0)
        assert np.median(np.abs(adapted[key].numpy() - value)) < 1e-6
        assert torch.equal(before[key], policy.visual.state_dict()[key])


def test_zero_shot_equals_the_authors(golden, clip, classnames):
    expected = golden("a_zero_shot")
    student, images = clip("student"), torch.from_numpy(expected["images"])
    for prompt, key in (("a photo of a", "space"), (UNDERSCORES, "underscore")):
        features = class_features(student, classnames, prompt)
        np.testing.assert_allclose(features, expected[f"encoder_{key}_class_features"], atol=1e-6)
        policy = EncoderPolicy(clip("student"), features)
        frozen = FrozenPolicy(student, features)
        for logits in (policy.answer(images[None]), frozen.zero_shot(frozen.encode(images[None]))):
            np.testing.assert_allclose(logits[0], expected[f"encoder_{key}_logits"], atol=1e-4, rtol=0)


def test_prompted_zero_shot_equals_the_authors(golden, clip, classnames):
    expected = golden("a_zero_shot")
    student = clip("student")
    context = initial_context(student, "words", 4, "a photo of a", seed=0)
    np.testing.assert_array_equal(context, expected["prompt_ctx"])
    policy = PromptPolicy(student, classnames, context)
    logits = policy.answer(policy.encode(torch.from_numpy(expected["images"])[None]))
    np.testing.assert_allclose(logits[0], expected["prompt_logits"], atol=1e-4, rtol=0)


def test_ranking_logits_equal_the_authors(golden, clip, views, classnames):
    expected = golden("b_rlcf_prompt")
    policy = make_classifier("b_rlcf_prompt", clip, classnames).policy
    logits = policy.rank(policy.encode(views[:1]), start=0)
    np.testing.assert_allclose(logits[0], expected["view_logits"][0], atol=1e-4, rtol=0)


def test_mean_logits_of_several_models_equal_the_authors(golden, clip):
    expected = golden("a_zero_shot")
    with_underscores = [str(name) for name in expected["classnames"]]
    models = [clip("student"), clip("rewardB"), clip("rewardRN")]
    ensemble = Rewards(models, with_underscores, "a photo of a", [1 / 3] * 3)
    logits = ensemble.see(torch.from_numpy(expected["images"])[None]).teacher_logits
    np.testing.assert_allclose(logits[0], expected["multiple_logits"], atol=1e-4, rtol=0)
