from functools import partial

import pytest

from rlcf.errors import UserError, flags_as_settings, run_main
from tests.tools import mistake


def failing(error):
    def main():
        raise error

    return main


def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(capsys):
    assert mistake(failing(UserError("no file x.jpg; mend it")), capsys) == "no file x.jpg; mend it"


def test_a_sentence_of_any_length_is_cut_in_its_middle(capsys):
    for error in (UserError, partial(FileNotFoundError, 2, "No such file")):
        told = mistake(failing(error("start " + "x" * 10**6 + "; the remedy")), capsys)
        assert len(told) <= 2000 and told.startswith("start xxx") and "the remedy" in told and " ... " in told


def test_ctrl_c_says_that_the_same_command_goes_on(capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(failing(KeyboardInterrupt))
    assert stop.value.code == 130
    assert capsys.readouterr().err == "\nstopped; the same command continues where it was\n"


def test_an_error_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_main(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        ("--sample-k 7 exceeds the 6 classes", "sample_k 7 exceeds the 6 classes"),
        ("give --reward and --reward-weights", "give reward and reward_weights"),
        ("--reward py:a.b:c_d failed", "reward py:a.b:c_d failed"),
        ("no flag -- in x--y.jpg or RN50-x", "no flag -- in x--y.jpg or RN50-x"),
    ],
)
def test_flags_of_a_message_become_settings(flag, setting):
    with pytest.raises(UserError) as error, flags_as_settings():
        raise UserError(flag)
    assert str(error.value) == setting


def test_other_errors_pass_as_they_are():
    with pytest.raises(ValueError, match="--sample-k"), flags_as_settings():
        raise ValueError("--sample-k")


def test_what_caused_a_mistake_is_kept():
    cause = OSError("disk")
    with pytest.raises(UserError) as error, flags_as_settings():
        raise UserError("--data") from cause
    assert error.value.__cause__ is cause
