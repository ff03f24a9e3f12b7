"""Pictures without labels: predictions, and not one word of accuracy."""

import csv
import json
import shutil

import pytest

from classification.main import main
from rlcf.errors import UserError
from tests.tools import Results

from .conftest import EMOJI, TINY_RUN


@pytest.fixture
def predict(emoji, tmp_path):
    """Runs the entry script's main on a flat folder of blurred emoji, of which one lies in a folder below."""
    photos, names = tmp_path / "photos", tmp_path / "names.txt"
    (photos / "more").mkdir(parents=True)
    for name in EMOJI[:-1]:
        shutil.copy(next((emoji / "blur" / name).iterdir()), photos / f"{name}.png")
    shutil.copy(next((emoji / "blur" / EMOJI[-1]).iterdir()), photos / "more" / "last.png")
    names.write_text("\n".join(EMOJI))

    def run(*flags, classnames=names):
        models = ["--student", "demo-student", "--reward", "demo-reward", "--output", str(tmp_path / "run")]
        named = [] if classnames is None else ["--classnames", str(classnames)]
        main([*["--data", str(photos), "--datasets", "images"], *models, *named, *TINY_RUN, *flags])
        return Results(tmp_path / "run")

    return run


def test_pictures_without_labels_get_predictions_and_no_accuracy_anywhere(predict, capsys):
    run = predict("--tune", "norm")
    printed = capsys.readouterr()
    records, metrics = run.records(), run.metrics["images"]
    assert [record["id"] for record in records] == [f"{name}.png" for name in sorted(EMOJI[:-1])] + ["more/last.png"]
    for record in records:
        assert not {"label", "label_name"} & record.keys()
        assert record["zero_shot_name"] in EMOJI and record["adapted_name"] in EMOJI
    changed = sum(record["zero_shot"] != record["adapted"] for record in records)
    assert (metrics["n"], metrics["changed"]) == (6, changed)
    told = json.dumps(metrics) + json.dumps(records) + printed.out + printed.err
    assert not [word for word in ("top1_", "top-1", "accuracy", 'label"', "ece", "fixed") if word in told]
    assert sum(metrics["adapted"]["predictions"].values()) == 6
    line = printed.out.splitlines()[-1]
    assert line.startswith(f"images: n 6, no labels, rlcf changed {changed} answers, ")
    assert line.endswith(f"; {run.folder / 'images' / 'predictions.csv'}")
    with (run.folder / "images" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["image"], row["zero_shot"], row["adapted"]) for row in rows] == [
        (record["id"], record["zero_shot_name"], record["adapted_name"]) for record in records
    ]


def test_a_picture_that_cannot_be_read_has_a_row_without_answers(predict, tmp_path):
    (tmp_path / "photos" / "apple.png").write_text("torn")
    run = predict("--method", "zeroshot", "--skip-bad-images")
    assert (run.folder / "images" / "predictions.csv").read_text().splitlines()[1] == "apple.png,,,,"
    assert run.metrics["images"]["n"] == 5


@pytest.mark.parametrize(
    ("flags", "names", "told"),
    [
        ([], None, "dataset images has no class folders; give --classnames a text file with one class name a line"),
        ([], "gone.txt", "--classnames: there is no file of class names .*gone.txt"),
        (["--datasets", "images:gone"], "names.txt", "no folder .*photos/gone for dataset images:gone"),
        (["--sample-k", "7"], "names.txt", "--sample-k 7 exceeds the 6 classes of images"),
    ],
)
def test_what_is_missing_is_told(predict, tmp_path, flags, names, told):
    with pytest.raises(UserError, match=told):
        predict(*flags, classnames=names and tmp_path / names)


def test_a_names_file_that_changed_refuses_to_mix(predict, tmp_path):
    predict("--method", "zeroshot", "--limit", "2")
    (tmp_path / "names.txt").write_text("\n".join(reversed(EMOJI)))
    with pytest.raises(UserError, match="begun with other class names"):
        predict("--method", "zeroshot", "--limit", "2")
