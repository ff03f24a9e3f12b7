import dataclasses
import re
import string
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcf import __version__
from rlcf.errors import UserError, flags_as_settings
from rlcf.run.config import find_preset, make_config, option, parse_config, read_preset, to_yaml
from rlcf.run.settings import Config as SharedConfig


@dataclasses.dataclass
class Config(SharedConfig):
    """The shared settings, of a task with one method."""

    methods: ClassVar = {
        "rlcf": SimpleNamespace(told="", adapts=True, asks_rewards=True, needs_logits=False, settings=())
    }


@dataclasses.dataclass
class TaskConfig(Config):
    """A task's settings."""

    classes: int = option(5, "number of classes", at_least=2, group="task")
    folds: int = option(1, "parts of the data", group="evaluation")

    def check(self):
        super().check()
        if self.classes % 2 == 0:
            raise UserError(f"--classes {self.classes} is even; use --sample-k {self.classes} in its place")


def parse(*argv, kind=Config):
    return parse_config(kind, list(argv), "A task.", "")


@pytest.fixture
def preset(tmp_path):
    """Writes a preset; returns the arguments that name it."""

    def write(text):
        file = tmp_path / "preset.yaml"
        file.write_text(text)
        return "--config", str(file)

    return write


def test_flags_win_over_the_preset_and_the_preset_over_defaults(preset):
    config = parse(*preset("steps: 5\nlr: 1e-3\n"), "--lr", "0.01")
    assert (config.steps, config.lr, config.sample_k) == (5, 0.01, Config().sample_k)


def test_without_arguments_everything_is_default():
    assert parse() == Config()


def test_configs_do_not_share_their_lists():
    assert Config().reward is not Config().reward
    assert parse().reward is not Config().reward


def test_a_tasks_own_option_is_a_flag_and_a_key(preset):
    assert parse("--classes", "7", kind=TaskConfig).classes == 7
    assert parse(*preset("classes: 9"), kind=TaskConfig).classes == 9
    with pytest.raises(UserError, match="classes"):
        parse(*preset("classes: 8"))


@pytest.mark.parametrize(
    ("key", "near"), [("step", "steps"), ("skip-bad-images", "skip_bad_images"), ("Reward", "reward")]
)
def test_an_unknown_key_is_told_with_the_preset_and_the_near_one(preset, key, near):
    flag, file = preset(f"{key}: 1\n")
    with pytest.raises(UserError) as error:
        parse(flag, file)
    assert str(error.value) == f"{file}: unknown key '{key}'; did you mean '{near}'?"


def test_an_unknown_flag_is_named():
    with pytest.raises(UserError, match=r"--step 2; --help lists the flags"):
        parse("--step", "2")


BAD = [
    ("steps", "two"),
    ("steps", "1.5"),
    ("steps", "0"),
    ("steps", "inf"),
    ("lr", "fast"),
    ("lr", "0"),
    ("lr", "-1"),
    ("lr", "nan"),
    ("lr", "inf"),
    ("weight_decay", "-0.1"),
    ("momentum_decay", "1.5"),
    ("limit", "0"),
    ("seed", "-1"),
    ("precision", "fp8"),
    ("baseline", "mean"),
    ("reward_weights", "heavy"),
]


@pytest.mark.parametrize(("key", "value"), BAD)
def test_a_flag_of_the_wrong_type_choice_or_range_is_named(key, value):
    flag = "--" + key.replace("_", "-")
    with pytest.raises(UserError) as error:
        parse(f"{flag}={value}")
    assert str(error.value).startswith(f"{flag}: ") and value in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *BAD,
        ("momentum", "often"),
        ("momentum", "1"),
        ("steps", "true"),
        ("lr", "false"),
        ("steps", "[3]"),
        ("student", "[ViT-B/16, ViT-L/14]"),
        ("student", "{name: ViT-B/16}"),
        ("reward", "{name: ViT-B/16}"),
        ("steps", "null"),
        ("reward_weights", "[1, null]"),
    ],
)
def test_a_key_of_the_wrong_type_choice_or_range_is_named_with_its_preset(preset, key, value):
    flag, file = preset(f"{key}: {value}\n")
    with pytest.raises(UserError) as error:
        parse(flag, file)
    assert str(error.value).startswith(f"{file}: {key}")


@pytest.mark.parametrize("key", ["reward", "reward_weights"])
def test_an_empty_list_is_told(preset, key):
    with pytest.raises(UserError, match=rf"preset\.yaml: {key} needs a value"):
        parse(*preset(f"{key}: []\n"))


def test_reward_weights_must_fit_the_reward_models():
    with pytest.raises(UserError, match="--reward-weights has 2 numbers for 1 reward models"):
        parse("--reward-weights", "10", "3")
    with pytest.raises(
        UserError, match="--reward-weights must be above 0; leave out a reward model that shall not count"
    ):
        parse("--reward", "a", "b", "--reward-weights", "1", "0")


def test_a_range_is_told_in_words():
    with pytest.raises(UserError, match=r"^--momentum-decay: 1.5 must be at most 1$"):
        parse("--momentum-decay", "1.5")
    with pytest.raises(UserError, match=r"^--lr: 0 must be above 0$"):
        parse("--lr", "0")


def test_bounds_themselves_are_in_range():
    config = parse("--momentum-decay", "1", "--momentum-weight", "0", "--weight-decay", "0", "--steps", "1")
    assert (config.momentum_decay, config.momentum_weight, config.weight_decay, config.steps) == (1.0, 0.0, 0.0, 1)


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1E-3", "'1e-3'"])
def test_numbers_in_scientific_notation_are_numbers(preset, text):
    assert parse(*preset(f"lr: {text}")).lr == 0.001


def test_whole_numbers_of_any_size_are_exact():
    assert parse("--seed", str(2**60 + 1)).seed == 2**60 + 1


def test_a_whole_number_written_as_a_float_is_whole(preset):
    steps = parse(*preset("steps: 4.0")).steps
    assert steps == 4 and isinstance(steps, int)
    assert parse("--limit", "1e3").limit == 1000


def test_booleans_are_switched_by_a_flag_and_its_no(preset):
    assert parse("--momentum").momentum is True
    assert parse(*preset("momentum: true")).momentum is True
    assert parse(*preset("momentum: true"), "--no-momentum").momentum is False


def test_none_clears_an_optional_setting(preset):
    arguments = preset("limit: 3\nclip_root: clips\n")
    assert parse(*arguments).limit == 3
    config = parse(*arguments, "--limit", "none", "--clip-root", "none")
    assert config.limit is None and config.clip_root is None


def test_none_clears_an_optional_list(preset):
    assert parse(*preset("reward_weights: [1, 2]"), "--reward-weights", "none").reward_weights is None


@pytest.mark.parametrize("text", ["null", "none", "", "~"])
def test_none_in_a_preset_clears_an_optional_setting(preset, text):
    config = parse(*preset(f"limit: {text}\nreward_weights: {text}\n"))
    assert config.limit is None and config.reward_weights is None


def test_lists_are_several_words_or_one(preset):
    config = parse("--reward", "ViT-L/14", "RN50x64", "--reward-weights", "10", "3")
    assert config.reward == ["ViT-L/14", "RN50x64"] and config.reward_weights == [10.0, 3.0]
    config = parse(*preset("reward: ViT-B/16\nreward_weights: 2"))
    assert config.reward == ["ViT-B/16"] and config.reward_weights == [2.0]


def test_a_list_flag_replaces_the_presets_list(preset):
    assert parse(*preset("reward: [a, b]"), "--reward", "c").reward == ["c"]


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [", "\tsteps: 3"])
def test_a_preset_that_is_no_mapping_is_named(preset, text):
    flag, file = preset(text)
    with pytest.raises(UserError, match=r"preset\.yaml"):
        parse(flag, file)


def test_a_preset_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no preset .*gone.yaml"):
        parse("--config", str(tmp_path / "gone.yaml"))


def test_an_empty_preset_changes_nothing(preset):
    assert parse(*preset("")) == Config()


TEXT = st.text(string.ascii_letters + string.digits + "/.:-_ @'\"#é", max_size=12)


def configs_of(n_models):
    return st.builds(
        Config,
        data=TEXT,
        student=TEXT,
        reward=st.lists(TEXT, min_size=n_models, max_size=n_models),
        reward_weights=st.none() | st.lists(st.floats(0.01, 100), min_size=n_models, max_size=n_models),
        limit=st.none() | st.integers(1, 10**6),
        lr=st.floats(1e-12, 1e3),
        momentum=st.booleans(),
        seed=st.integers(0, 2**60),
    )


@settings(max_examples=20)
@given(st.integers(1, 3).flatmap(configs_of))
def test_a_written_config_reads_back_as_it_was(tmp_path_factory, config):
    file = tmp_path_factory.getbasetemp() / "config.yaml"
    file.write_text(to_yaml(config))
    assert read_preset(Config, str(file)) == dataclasses.asdict(config)
    assert parse("--config", str(file)) == config


@pytest.mark.parametrize("spec", dataclasses.fields(TaskConfig), ids=lambda spec: spec.name)
def test_help_has_each_flag_once_with_its_help_and_its_default(capsys, spec):
    with pytest.raises(SystemExit) as stop:
        parse("--help", kind=TaskConfig)
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "A task." in text
    flag, default = "--" + spec.name.replace("_", "-"), spec.default_factory()
    described = re.search(
        rf" {flag}(?:, --no-\S+)?(?: [A-Z{{][^ ]*)?(?: \[.*?\])? {re.escape(spec.metadata['help'])}(.{{0,40}})", text
    )
    assert described is not None
    shown = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
    if shown not in (None, ""):
        shown = " ".join(map(str, shown)) if isinstance(shown, list) else shown
        assert described[1].startswith(f" (default: {shown})")


def test_version_is_told_and_nothing_runs(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--version", "--data", "/no/such")
    assert stop.value.code == 0 and capsys.readouterr().out == f"rlcf {__version__}\n"


# ---- presets by name ----


@pytest.fixture
def task(tmp_path):
    """A task that comes with two presets."""
    folder = tmp_path / "task" / "configs"
    folder.mkdir(parents=True)
    (folder / "quick.yaml").write_text("steps: 1\n")
    (folder / "slow.yaml").write_text("steps: 9\n")
    return type("TaskWithPresets", (TaskConfig,), {"presets": folder})


@pytest.mark.parametrize("named", ["quick", "quick.yaml"])
def test_a_preset_that_comes_along_is_found_by_its_name(task, named):
    assert find_preset(task, named) == task.presets / "quick.yaml"
    assert parse("--config", named, kind=task).steps == 1


def test_a_file_wins_over_a_preset_of_the_same_name(task, tmp_path, monkeypatch):
    (tmp_path / "quick").write_text("steps: 4\n")
    monkeypatch.chdir(tmp_path)
    assert parse("--config", "quick", kind=task).steps == 4


@pytest.mark.parametrize("named", ["fast", "../configs/quick", "/no/such.yaml"])
def test_a_preset_that_is_not_there_is_told_with_those_there_are(task, named):
    with pytest.raises(UserError) as error:
        find_preset(task, named)
    assert str(error.value) == f"no preset {named}; give a file, or one of quick, slow"


def test_help_says_where_presets_are_found_by_name(task, capsys):
    with pytest.raises(SystemExit):
        parse("--help", kind=task)
    assert "YAML preset, or the name of one in task/configs; its keys" in " ".join(capsys.readouterr().out.split())


# ---- settings given in Python ----


def test_settings_in_python_are_those_of_the_flags():
    settings = {"steps": 5, "lr": "1e-3", "reward": ["a", "b"], "reward_weights": [2, 1], "momentum": True}
    flags = ["--steps", "5", "--lr", "1e-3", "--reward", "a", "b", "--reward-weights", "2", "1", "--momentum"]
    assert make_config(TaskConfig, settings) == parse(*flags, kind=TaskConfig)
    assert make_config(TaskConfig, {}) == parse(kind=TaskConfig)


def test_one_word_is_a_list_of_one_in_python_too():
    assert make_config(TaskConfig, {"reward": "a"}).reward == ["a"]


def test_numbers_and_lists_of_numpy_and_pytorch_are_settings_too():
    settings = {"steps": np.int64(5), "lr": np.float64(0.5), "weight_decay": torch.tensor(0.25), "momentum": np.True_}
    rewards = {"reward": ("a", "b"), "reward_weights": np.array([2.0, 1.0])}
    plain = {"steps": 5, "lr": 0.5, "weight_decay": 0.25, "momentum": True, "reward": ["a", "b"]}
    assert make_config(TaskConfig, settings | rewards) == make_config(TaskConfig, plain | {"reward_weights": [2, 1]})


def mistaken(**settings):
    with pytest.raises(UserError) as error, flags_as_settings():
        make_config(TaskConfig, settings)
    return str(error.value)


@pytest.mark.parametrize(("key", "near"), [("step", "steps"), ("sample-k", "sample_k"), ("Reward", "reward")])
def test_an_unknown_setting_is_told_with_the_near_one(key, near):
    assert mistaken(**{key: 1}) == f"unknown setting '{key}'; did you mean '{near}'?"
    assert mistaken(nothing_like_it=1) == "unknown setting 'nothing_like_it'"


@pytest.mark.parametrize("key", ["data", "output", "limit", "workers", "skip_bad_images", "folds"])
def test_settings_of_whole_datasets_are_the_command_lines_alone(key):
    assert mistaken(**{key: 1}) == f"{key} is a setting of the command line, which runs over datasets"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: 0 must be at least 1"),
        ({"steps": "two"}, "steps: 'two' is not a whole number"),
        ({"momentum": 1}, "momentum: '1' is not true or false"),
        ({"precision": "fp8"}, "precision: 'fp8' is not one of auto, fp32, bf16, fp16"),
        ({"student": None}, "student needs a value"),
        ({"reward_weights": [1, 2]}, "reward_weights has 2 numbers for 1 reward models"),
        ({"classes": 4}, "classes 4 is even; use sample_k 4 in its place"),
    ],
)
def test_mistakes_in_python_speak_of_settings(settings, message):
    assert mistaken(**settings) == message


def test_a_preset_whose_error_has_no_words_is_told(preset, monkeypatch):
    def refuse(text, loader):
        raise ValueError

    monkeypatch.setattr("rlcf.run.config.yaml.compose", refuse)
    with pytest.raises(UserError, match=r"is no readable YAML preset \(ValueError\)"):
        parse(*preset("steps: 5"))
