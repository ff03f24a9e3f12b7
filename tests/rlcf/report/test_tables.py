"""Tables for papers, and the papers' own figures."""

import csv
import json
import re

import pytest

from caption.config import CaptionConfig
from classification.config import ClassificationConfig
from rlcf.report.published import published_of
from rlcf.run.config import read_preset
from tests.records import captioned, classified
from tests.tools import ROOT

# A preset -> what it names the experiment of: those whose figures the presets' comments tell.
EXPERIMENTS = {
    "rlcf-prompt": "RLCF, prompt",
    "rlcf-tune-single": "RLCF, image encoder",
    "tpt-prompt": "TPT",
    "zero-student": "ZERO",
    "zero-reward": "ZERO, the reward model votes",
    "mta": "MTA",
    "tda": "TDA",
}


@pytest.fixture
def tables(write_run, tmp_path, capsys):
    """Runs the command on two runs of the dataset A, the first a preset's; returns the tables by their flag."""
    from rlcf.report.main import main

    settings = read_preset(ClassificationConfig, ROOT / "classification" / "configs" / "rlcf-prompt.yaml")
    rows = [classified(i, 0, i % 2, 0) for i in range(4)]
    runs = [write_run({"A": rows}, "rlcf_50%", **settings), write_run({"A": rows}, "other|run", steps=9)]
    files = {form: tmp_path / f"table.{form}" for form in ("csv", "markdown", "latex")}
    words = [word for form, file in files.items() for word in (f"--{form}", str(file))]
    main([*map(str, runs), *words, "--no-page"])
    assert capsys.readouterr().out == "".join(f"{form}: {file}\n" for form, file in files.items())
    assert not list(tmp_path.rglob("*.html"))
    return {form: file.read_text() for form, file in files.items()}


def test_the_csv_has_a_line_a_number_and_tells_whose_it_is(tables):
    lines = list(csv.DictReader(tables["csv"].splitlines()))
    first = lines[0]
    assert (first["run"], first["method"], first["dataset"], first["metric"]) == ("rlcf_50%", "rlcf", "A", "top-1")
    assert (first["source"], first["n"], first["zero_shot"], first["adapted"], first["gain"]) == (
        "this run",
        "4",
        "50",
        "100",
        "50",
    )
    assert float(first["zero_shot_low"]) < 50 < float(first["zero_shot_high"])
    (paper,) = [line for line in lines if line["source"] != "this run"]
    assert "ICLR 2024" in paper["source"] and (paper["adapted"], paper["n"]) == ("65.45", "")
    assert paper["method"] == "RLCF, prompt (paper)" and paper["run"] == "rlcf_50%"


def test_the_markdown_has_the_papers_figures_below_the_run_named_as_theirs(tables):
    lines = tables["markdown"].splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[:6]]
    assert [row[0] for row in cells] == [
        "method",
        "-" * (len(cells[1][0])),
        "zero-shot",
        r"rlcf\_50%",
        "RLCF, prompt (paper)",
        r"other\|run",
    ]
    assert cells[3][1].startswith("100.00 (") and cells[4][1] == "65.45"
    assert "not measured here" in lines[-1]


def test_the_latex_table_is_balanced_and_escaped(tables):
    text = tables["latex"]
    assert r"rlcf\_50\%" in text and r"RLCF, prompt (paper) & 65.45 \\" in text
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 1
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    assert all(line.count("&") == 1 for line in body.splitlines() if line.endswith(r"\\"))


def test_a_caption_table_tells_cider_times_100(write_run, tmp_path):
    from rlcf.report.main import main

    folder = write_run({"folder": [captioned(i, "a", "b", (0.25, 0.5)) for i in range(3)]}, task="captioning")
    for name, value in (("each-scores-zero-shot.json", 0.5), ("each-scores.json", 0.75)):
        (folder / "folder" / name).write_text(json.dumps({f"{i}.png": {"CIDEr": value} for i in range(3)}))
    main([str(folder), "--no-page", "--markdown", str(tmp_path / "t.md")])
    table = (tmp_path / "t.md").read_text().splitlines()
    assert "CIDEr" in table[0] and "50.0 (50.0 to 50.0)" in table[2] and "75.0" in table[3] and "0.500" in table[3]
    assert "CIDEr: times 100." in table[-1]


def test_a_name_is_no_formula_of_a_spreadsheet(write_run, tmp_path):
    from rlcf.report.main import main

    folder = write_run({"folder": [classified(0, 0, 0, 0)]}, "=1+1")
    main([str(folder), "--no-page", "--csv", str(tmp_path / "t.csv")])
    (line, *_) = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert line["run"] == "'=1+1"


def config_of(preset, **changed):
    settings = read_preset(ClassificationConfig, ROOT / "classification" / "configs" / f"{preset}.yaml")
    return vars(ClassificationConfig(**{**settings, **changed}))


@pytest.mark.parametrize(("preset", "name"), EXPERIMENTS.items())
def test_a_presets_run_stands_beside_the_figures_that_its_comment_tells(preset, name):
    (found,) = published_of("classification", config_of(preset))
    assert found.name == name and list(found.values) == list("IAVRK") and found.metric == "top-1"
    comment = (ROOT / "classification" / "configs" / f"{preset}.yaml").read_text()
    if preset != "rlcf-tune-single":  # which tells the gain alone
        assert " / ".join(f"{value:.2f}" for value in found.values.values()) in comment


@pytest.mark.parametrize(
    "changed", [{"student": "ViT-B/32"}, {"reward": ["RN50"]}, {"steps": 8}, {"kl_weight": 0.1}, {"views": 8}]
)
def test_a_run_with_other_settings_stands_beside_none(changed):
    assert published_of("classification", config_of("rlcf-prompt", **changed)) == []


def test_coops_context_has_figures_of_its_own():
    (found,) = published_of(
        "classification", config_of("rlcf-prompt", context="/data/pretrained/coop/model.pth.tar-50")
    )
    assert found.values["I"] == 76.05


def test_other_tasks_have_none():
    assert published_of("captioning", vars(CaptionConfig(checkpoint="demo-clipcap"))) == []
