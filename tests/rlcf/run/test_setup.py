import dataclasses
import signal
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from rlcf import start
from rlcf.adapt.rewards import RewardFunction
from rlcf.errors import UserError
from rlcf.run import setup
from rlcf.run.config import option, parse_config, read_preset
from rlcf.run.settings import Config
from rlcf.run.setup import Models, Setup, import_reward, load_models, reward_weights
from rlcf.run.shard import Shard

CPU = torch.device("cpu")


@dataclasses.dataclass
class TaskConfig(Config):
    """A task with methods that ask rewards and remember as they are told."""

    methods: ClassVar = {"rlcf": SimpleNamespace(told="", adapts=True, needs_logits=False, settings=())}

    asks: bool = option(True, "ask the reward models")
    cache: bool = option(False, "carry something from sample to sample")

    @property
    def asks_rewards(self):
        return self.asks

    @property
    def remembers(self):
        return self.momentum or self.cache


def command(*argv):
    return Setup.of_config(parse_config(TaskConfig, ["--device", "cpu", *argv], "A task.", ""))


@pytest.fixture
def loaded(monkeypatch):
    """The names of the models that are loaded, in order."""
    names = []

    def load_clip(name, device, precision, clip_root):
        names.append(name)
        return f"{name} in {precision} on {device} from {clip_root}"

    monkeypatch.setattr(setup, "load_clip", load_clip)
    return names


def score(images, texts):
    return [0.0] * len(texts)


def test_a_command_line_becomes_settings_a_place_and_a_precision():
    found = command("--steps", "7")
    assert (found.config.steps, found.shard, found.device, found.precision) == (7, Shard(), CPU, "fp32")
    assert command("--precision", "bf16").precision == "bf16"


def test_the_run_folder_holds_the_device_and_precision_that_auto_became(folder):
    command("--output", str(folder)).open_run()
    written = read_preset(TaskConfig, folder / "config.yaml")
    assert (written["device"], written["precision"]) == ("cpu", "fp32")


@pytest.mark.parametrize(("flag", "said"), [("--momentum", "--momentum"), ("--cache", "--method rlcf")])
def test_what_is_carried_from_sample_to_sample_refuses_several_processes(monkeypatch, flag, said):
    assert command(flag).shard == Shard()
    monkeypatch.setattr(Shard, "from_environment", staticmethod(lambda: Shard(0, 2)))
    assert command().shard.count == 2
    with pytest.raises(UserError) as error:
        command(flag)
    expected = "carries state from sample to sample and cannot be sharded; start one process"
    assert str(error.value) == f"{said} {expected}"


def test_the_student_and_the_reward_models_are_loaded_by_name(loaded):
    models = command("--student", "s", "--reward", "a", "b", "--clip-root", "clips").load_models()
    of = "in fp32 on cpu from clips"
    assert models == Models(f"s {of}", [f"a {of}", f"b {of}"]) and loaded == ["s", "a", "b"]


def test_a_method_that_asks_no_rewards_loads_none(loaded):
    assert command("--student", "s", "--reward", "a", "--no-asks").load_models().rewards == []
    assert loaded == ["s"]


def test_functions_stand_among_reward_models_in_their_order(loaded):
    name = f"py:{__name__}:score"
    rewards = load_models(TaskConfig(student="s", reward=["a", name, "b"]), CPU, "fp32").rewards
    assert isinstance(rewards[1], RewardFunction) and rewards[1].name == f"--reward {name}"
    assert [reward.split()[0] for reward in (rewards[0], rewards[2])] == ["a", "b"] and loaded == ["s", "a", "b"]


def test_a_mistake_in_a_function_is_told_before_anything_is_loaded(loaded):
    with pytest.raises(UserError, match=r"^--reward py:no_such:f cannot be imported"):
        load_models(TaskConfig(student="s", reward=["a", "py:no_such:f"]), CPU, "fp32")
    assert loaded == []


def test_weights_of_an_ensemble_sum_to_one_and_are_equal_when_not_given():
    assert reward_weights(TaskConfig(), 4) == [0.25] * 4
    config = TaskConfig(reward=["a", "b", "c"], reward_weights=[10, 3, 5])
    assert reward_weights(config, 3) == pytest.approx([10 / 18, 3 / 18, 5 / 18])
    assert reward_weights(dataclasses.replace(config, round_reward_weights=True), 3) == [0.56, 0.17, 0.28]


def test_two_functions_of_one_name_are_two_rewards():
    first, second = (lambda images, texts, score=score: [score] * len(texts) for score in (1.0, 2.0))
    setup = Setup.of_settings(TaskConfig, {"reward": [first, "clip", second]})
    assert len(setup.functions) == 2 and setup.config.reward[1] == "clip"
    assert [setup.functions[setup.config.reward[i]].function for i in (0, 2)] == [first, second]


def test_a_module_that_ends_python_is_told(tmp_path, monkeypatch):
    (tmp_path / "quits.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--reward py:quits:f cannot be imported \(SystemExit: 3\)"):
        import_reward("py:quits:f")


def test_freed_memory_is_kept_by_a_command_of_its_own_process_alone(monkeypatch):
    """Called from other code, a run leaves that code's process as it is."""
    kept = []
    monkeypatch.setattr(setup, "keep_freed_memory", lambda: kept.append(True))
    command()
    assert not kept
    monkeypatch.setattr(signal, "getsignal", lambda number: start._Signals())
    command()
    assert kept == [True]
