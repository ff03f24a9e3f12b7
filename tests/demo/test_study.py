"""The study: its runs, its intervals over worlds and images, and its tables."""

import json

import numpy as np
import pytest

from demo import study
from demo.study_report import hierarchical_interval, write_report
from rlcf.errors import UserError


def test_a_gain_that_all_worlds_share_has_a_narrow_interval():
    same = [np.array([1.0] * 30 + [0.0] * 70)] * 3
    mean, low, high = hierarchical_interval(same)
    assert mean == pytest.approx(30.0) and 24 < low < 30 < high < 36


def test_worlds_that_disagree_widen_the_interval():
    apart = [np.full(1000, value) for value in (0.0, 0.3, 0.6)]
    mean, low, high = hierarchical_interval(apart)
    assert mean == pytest.approx(30.0) and low == pytest.approx(0.0) and high == pytest.approx(60.0)


def test_a_pair_that_was_not_trained_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no model .*student-1; train it: python -m demo.study train --pairs 1"):
        study.models(tmp_path, 1)


def test_a_report_without_runs_is_told(tmp_path):
    with pytest.raises(UserError, match=r"holds no study; run it first: python -m demo.study run"):
        write_report(tmp_path, {}, [])


def test_every_method_of_the_study_is_a_command_that_parses():
    from classification.config import ClassificationConfig
    from rlcf.run.config import parse_config

    for name, (_, flags) in study.METHODS.items():
        config = parse_config(ClassificationConfig, flags.split(), "", "")
        assert config.method in name or config.method in ("rlcf", "ensemble", "zero")


def test_runs_on_other_pictures_lie_in_a_folder_of_their_own(tmp_path, monkeypatch):
    places = []
    monkeypatch.setattr(study, "run_all", lambda output, place, *_: places.append(place))
    for flags in (["--seed", "1001"], ["--seed", "2002"], ["--seed", "2002", "--per-class", "2"]):
        monkeypatch.setattr("sys.argv", ["study", "run", "--output", str(tmp_path), *flags])
        study.main()
    assert len(set(places)) == 3


@pytest.mark.slow
def test_the_study_runs_and_reports(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "STYLES", ("clean", "blur"))
    place = tmp_path / "place"
    for style in study.STYLES:
        study.write_classification(place / "pictures" / style, style, 1, 7)
    names = ["zeroshot", "reward", "product"]
    for name in names:
        printed = study.run_method(tmp_path, place, 0, name)
        assert f"pair 0, {name}: folder:blur: n 100" in printed
        assert study.run_method(tmp_path, place, 0, name) == ""  # it is there
    (place / "study.json").write_text(json.dumps({"pairs": [0], "per_class": 1, "seed": 7}))
    titles = {name: title for name, (title, _) in study.METHODS.items()}
    write_report(place, titles, study.STYLES)
    report = (place / "study.md").read_text()
    assert capsys.readouterr().out.startswith(report)
    assert (place / "study.png").stat().st_size > 10_000
    rows = {line.split("|")[1].strip(): line for line in report.splitlines() if line.startswith("|")}
    assert {"zero-shot", "reward model alone", "product of both models"} <= rows.keys()
    assert "TPT, prompt" not in rows
