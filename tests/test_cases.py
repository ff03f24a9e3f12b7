"""Pictures, lists and paths of kinds that people have, through the commands."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

import caption.main as caption_main
from caption import run as caption_run
from caption.datasets import load_dataset as caption_dataset
from classification import Classifier
from classification.main import main as classify
from clipscore.main import main as clipscore
from demo.world import write_classification
from retrieval.datasets import load_dataset as retrieval_dataset
from retrieval.main import main as retrieve
from tests.tools import Results, mistake, run_script, write_pictures

CASES = Path(__file__).parent / "cases"
IMAGES, LISTS = CASES / "images", CASES / "lists"
PIG, CRAB = "a pig to the left of a butterfly", "a crab to the right of a bird"


@pytest.fixture
def scored(tmp_path):
    """CLIPScores by demo-reward: image -> score."""

    def run(candidates, folder, *flags):
        file, each = tmp_path / "candidates.json", tmp_path / "each.json"
        if isinstance(candidates, dict):
            file.write_text(json.dumps(candidates))
            candidates = file
        words = ["--clip", "demo-reward", "--prefix", "", "--no-java", "--workers", "0", "--device", "cpu"]
        clipscore([str(candidates), str(folder), *words, "--save-per-instance", str(each), *map(str, flags)])
        return {name: scores["CLIPScore"] for name, scores in json.loads(each.read_text()).items()}

    return run


# ---- pictures ----


def test_pictures_score_as_people_see_them(scored):
    pictures = {"ex0.jpg": PIG, "ex1.jpg": CRAB, "up0.jpg": PIG, "up1.jpg": CRAB, "g8_0.png": PIG, "g16_0.png": PIG}
    scores = scored(pictures, IMAGES)
    for lying, upright in (("ex0.jpg", "up0.jpg"), ("ex1.jpg", "up1.jpg"), ("g16_0.png", "g8_0.png")):
        assert scores[lying] == pytest.approx(scores[upright], abs=0.02) and scores[upright] > 1.5


def test_pictures_score_as_the_published_code_read_them_where_that_is_asked_for(scored):
    scores = scored({"ex0.jpg": PIG, "ex1.jpg": CRAB, "g16_0.png": PIG}, IMAGES, "--image-reading", "published")
    assert max(scores.values()) < 1.0


SMALL = ["--student", "demo-student", "--device", "cpu", "--workers", "0", "--method", "zeroshot"]


def test_a_run_reads_pictures_upright_or_as_published_and_python_reads_them_upright(tmp_path):
    names = {"ant": "red", "bee": "blue"}
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, colour in names.items():
        picture = Image.new("RGB", (64, 64), colour)
        picture.paste("white", (0, 0, 64, 20))
        for kind, turned in (("up", picture), ("lying", picture.transpose(Image.Transpose.ROTATE_90))):
            (tmp_path / kind / name).mkdir(parents=True)
            turned.save(tmp_path / kind / name / "1.png", **({"exif": exif} if kind == "lying" else {}))

    def logits(kind, *flags):
        output = tmp_path / "-".join(["run", kind, *flags])
        words = ["--data", str(tmp_path / kind), "--datasets", "folder", "--save-logits", "--output", str(output)]
        classify([*SMALL, *words, *flags])
        return Results(output).logits()["zero_shot"]

    upright = logits("up")
    assert (logits("lying") - upright).abs().max() < 1e-5
    assert (logits("lying", "--image-reading", "published") - upright).abs().max() > 1e-3
    answer = Classifier(list(names), student="demo-student", method="zeroshot", device="cpu")
    found = answer(tmp_path / "lying" / "ant" / "1.png").zero_shot
    assert (found - upright[0].softmax(dim=-1)).abs().max() < 1e-5


# ---- lists ----


@pytest.mark.parametrize("form", ["flat", "coco", "coco_str", "karpathy", "bom", "bs", "references"])
def test_every_form_of_a_list_gives_the_samples_of_the_plain_one_in_every_task(form):
    count = 3 if form == "karpathy" else 6
    plain, found = (retrieval_dataset(f"json:{name}", str(LISTS)) for name in ("plain", form))
    assert found.ids == plain.ids[:count] and found.captions == plain.captions[:count]
    assert found.files == plain.files[:count] and not found.published
    plain, found = (caption_dataset(f"json:{name}", str(LISTS)) for name in ("plain", form))
    assert found.samples == plain.samples[:count] and found.files == plain.files[:count]


@pytest.mark.parametrize(
    ("candidates", "references"),
    [
        ("candidates-bom", "references"),
        ("candidates-bom", "bs"),
        ("candidates-coco-results", "coco"),
        ("candidates-coco-results", "coco_str"),
        ("candidates-coco-results", "flat"),
        ("dots", "references"),
        ("dots", "plain"),
    ],
)
def test_candidates_of_every_form_have_the_scores_of_the_plain_ones(tmp_path, capsys, references, candidates):
    file = LISTS / f"{candidates}.json"
    if candidates == "dots":
        file = tmp_path / "dots.json"
        held = json.loads((LISTS / "candidates.json").read_text())
        file.write_text(json.dumps({f"./{name}": text for name, text in held.items()}))

    def scores(given, refs):
        words = ["--clip", "demo-reward", "--prefix", "", "--no-java", "--workers", "0", "--device", "cpu"]
        clipscore([str(given), str(LISTS), "--references", str(LISTS / f"{refs}.json"), *words])
        return capsys.readouterr().out

    assert scores(file, references) == scores(LISTS / "candidates.json", "references")


def test_ids_without_a_list_that_maps_them_are_one_sentence(capsys):
    def run():
        clipscore([str(LISTS / "candidates-coco-results.json"), str(LISTS), "--clip", "demo-reward"])

    assert "candidates-coco-results.json, entry 1: 0 is an id, and no list tells its image;" in mistake(run, capsys)


CAPTIONING = ["--checkpoint", "demo-clipcap", "--language-model", "demo-lm", "--student", "demo-student"]
CAPTIONING += ["--reward", "demo-reward", "--device", "cpu", "--workers", "0", "--method", "zeroshot"]


def test_a_caption_without_words_scores_0_and_is_told(tmp_path, capsys, monkeypatch):
    """The captioner says nothing of one image of six."""
    answers, describe = iter(range(6)), caption_run.describe

    def silent_once(answer):
        return describe(answer) | ({"zero_shot": "", "adapted": ""} if next(answers) == 0 else {})

    monkeypatch.setattr(caption_run, "describe", silent_once)
    folder = tmp_path / "run"
    flags = ["--data", str(LISTS), "--datasets", "json:plain", "--output", str(folder), "--no-evaluate-java"]
    caption_main.main([*CAPTIONING, *flags, "--evaluate", "--evaluate-clip", "demo-reward", "--evaluate-prefix", ""])
    assert "candidates.json: 1 of 6 captions have no words and score 0" in capsys.readouterr().err
    assert Results(folder).metrics["json:plain"]["adapted"]["captions_without_words"] == 1
    captions, scores = (
        json.loads((folder / "json-plain" / f"{name}.json").read_text()) for name in ("candidates", "each-scores")
    )
    assert sorted(captions.values())[0] == ""
    for name, text in captions.items():
        assert (set(scores[name].values()) == {0.0}) == (text == "")


# ---- folders ----


def test_what_a_folder_leaves_out_is_told_once_and_kept_in_the_log(tmp_path, capsys):
    write_pictures(tmp_path / "data", ["cat/1.png", "dog/1.png", "cat/._1.png", ".thumbnails/1.png"])
    (tmp_path / "data" / "dog" / "notes.txt").touch()
    flags = ["--data", str(tmp_path / "data"), "--datasets", "folder", "--output", str(tmp_path / "run")]
    classify([*SMALL, *flags, "--prompt", "a photo of a {}."])
    line = f"{tmp_path}/data: left out 2 hidden, 1 with another ending (.txt)"
    assert capsys.readouterr().err.count(line) == 1 and line in (tmp_path / "run" / "log.txt").read_text()
    assert "prompt: a photo of a\n" in (tmp_path / "run" / "config.yaml").read_text()


EMOJI = ("apple", "car", "cat", "dog", "key", "owl", "pig", "crab", "bird", "horse", "turtle", "lion")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Two pictures of each of twelve emoji, in folders that are called by their numbers."""
    root = tmp_path_factory.mktemp("numbered")
    write_classification(root, "clean", per_class=2, seed=7)
    for folder in list(root.iterdir()):
        if folder.name in EMOJI:
            folder.rename(root / str(EMOJI.index(folder.name)))
        else:
            shutil.rmtree(folder)
    return root


def run_numbered(root, output, names, *flags):
    file = output.parent / "names.txt"
    file.write_text(names)
    words = ["--data", str(root), "--datasets", "folder", "--output", str(output), "--classnames", str(file)]
    classify([*SMALL, *words, *flags])
    return Results(output).metrics["folder"]


def test_numbered_folders_are_right_with_their_names_and_refused_with_a_plain_list(numbered, tmp_path, capsys):
    lines = "".join(f"{number}\t{name}\n" for number, name in enumerate(EMOJI))
    metrics = run_numbered(numbered, tmp_path / "run", lines)
    assert metrics["zero_shot"]["top1"] == 100.0 and "doubt" not in metrics
    capsys.readouterr()
    plain = "".join(f"{name}\n" for name in EMOJI)
    said = mistake(lambda: run_numbered(numbered, tmp_path / "plain", plain), capsys)
    assert "lists names without their folders" in said and "write 'folder<TAB>name' in each line" in said


def test_labels_that_do_not_match_are_told_unless_the_samples_are_few(numbered, tmp_path, capsys):
    lines = "".join(f"{folder}\t{name}\n" for folder, name in zip(sorted(map(str, range(12))), EMOJI, strict=True))
    metrics = run_numbered(numbered, tmp_path / "run", lines)
    assert metrics["zero_shot"]["top1"] < 20 and "labels and folders probably do not match" in metrics["doubt"]
    assert f"folder: {metrics['doubt']}" in capsys.readouterr().err
    assert metrics["doubt"] in (tmp_path / "run" / "log.txt").read_text()
    assert "doubt" not in run_numbered(numbered, tmp_path / "few", lines, "--limit", "5")


# ---- names and paths ----


def test_names_that_are_not_utf8_survive_in_every_task(tmp_path, monkeypatch):
    name = "caf\udce9.png"
    write_pictures(tmp_path / "data", [f"b\udce9/{name}", "ä/1.png"])
    (tmp_path / "names.json").write_text(json.dumps({"bé": "cat", "ä": "dog"}))
    flags = ["--data", str(tmp_path / "data"), "--output"]
    named = ["--datasets", "folder", "--classnames", str(tmp_path / "names.json")]
    classify([*SMALL, *flags, str(tmp_path / "c\udce9"), *named])
    results = Results(tmp_path / "c\udce9")
    ids = {f"b\udce9/{name}", "ä/1.png"}
    assert {record["id"] for record in results.records()} == ids
    assert (results.folder_of() / "classnames.txt").read_text(encoding="utf-8") == "cat\ndog\n"
    caption_main.main([*CAPTIONING, *flags, str(tmp_path / "captions"), "--datasets", "folder"])
    candidates = tmp_path / "captions" / "folder" / "candidates.json"
    assert set(json.loads(candidates.read_text(encoding="utf-8"))) == ids
    (tmp_path / "data" / "list.json").write_text(json.dumps([{"image": image, "caption": "a dog"} for image in ids]))
    retrieve([*SMALL, *flags, str(tmp_path / "r"), "--datasets", "json:list", "--direction", "i2t"])
    assert {record["id"] for record in Results(tmp_path / "r").records()} == ids


OTHER_LOCALE = {"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


def test_a_run_in_a_locale_without_utf8_goes_on_in_another_and_prints_in_ascii(tmp_path, monkeypatch):
    """Also: nothing that cannot be printed stops a command."""
    write_pictures(tmp_path / "data", ["ä/é.png", "dog/1.png"])
    (tmp_path / "names.txt").write_text("ä\tcat\ndog\tdog\n", encoding="utf-8")
    flags = [*SMALL, "--data", "data", "--datasets", "folder", "--output", "rün", "--classnames", "names.txt"]
    (tmp_path / "data" / "é.txt").touch()
    done = run_script("classification/main.py", *flags, cwd=tmp_path, **OTHER_LOCALE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and "Traceback" not in done.stderr
    monkeypatch.chdir(tmp_path)
    classify(flags)
    assert {record["id"] for record in Results(tmp_path / "rün").records()} == {"ä/é.png", "dog/1.png"}


def test_a_tilde_is_the_home_folder_in_every_path_and_dollars_are_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_pictures(tmp_path / "my ${data}", ["a/1.png", "b/1.png"])
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    preset = {"data": "~/my ${data}", "datasets": ["folder"], "classnames": "~/names.txt", "output": "~/run ${x} ${"}
    (tmp_path / "preset.yaml").write_text(json.dumps(preset))
    classify([*SMALL, "--config", "~/preset.yaml"])
    results = Results(tmp_path / "run ${x} ${")
    assert len(results.records()) == 2
    assert yaml.safe_load((results.folder / "config.yaml").read_text())["data"] == str(tmp_path / "my ${data}")
    classify([*SMALL, "--config", str(results.folder / "config.yaml")])  # what was written is read again
    (tmp_path / "c.json").write_text(json.dumps({"a/1.png": "ant"}))
    clipscore(
        ["~/c.json", "~/my ${data}", "--clip", "demo-reward", "--prefix", "", "--output", "~/s.json", "--no-java"]
    )
    assert "CLIPScore" in (tmp_path / "s.json").read_text()


@pytest.mark.parametrize("output", ["", " "])
def test_an_empty_output_is_refused(tmp_path, capsys, output, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "data", ["a/1.png", "b/1.png"])
    said = mistake(lambda: classify([*SMALL, "--data", "data", "--datasets", "folder", "--output", output]), capsys)
    assert said == "--output is empty; give it the name of a folder" and [file.name for file in tmp_path.iterdir()] == [
        "data"
    ]


def test_the_log_tells_the_command_as_it_can_be_typed_again(tmp_path, monkeypatch):
    write_pictures(tmp_path / "my data", ["cat/1.png", "dog/1.png"])
    flags = [*SMALL, "--data", str(tmp_path / "my data"), "--datasets", "folder", "--output", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["classification/main.py", *flags])
    classify()
    (line,) = (row for row in (tmp_path / "run" / "log.txt").read_text().splitlines() if "command: " in row)
    assert shlex.split(line.partition("command: ")[2]) == ["classification/main.py", *flags]


def test_a_progress_bar_ends_at_its_total(demo_clip, capsys):
    demo_clip().encode_text(["a dog"] * 6, desc="captions")
    assert "6/6" in capsys.readouterr().err


# ---- stored datasets ----


def test_stored_datasets_run_in_every_task_and_with_processes_that_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["pig", "crab", "horse"])
    held = {"image": [{"bytes": (LISTS / f"clean/{i}.png").read_bytes(), "path": None} for i in range(6)]}
    held |= {"label": [i % 3 for i in range(6)], "caption": [["a pig", "a crab"][: 1 + i % 2] for i in range(6)]}
    features = {"image": datasets.Image(), "label": names, "caption": datasets.List(datasets.Value("string"))}
    whole = datasets.Dataset.from_dict(held, features=datasets.Features(features))
    (tmp_path / "set").mkdir()
    whole.to_parquet(str(tmp_path / "set" / "test.parquet"), batch_size=4)
    flags = ["--data", str(tmp_path), "--datasets", "hf:set", "--workers", "2", "--output"]
    classify([*SMALL, *flags, str(tmp_path / "classes")])
    retrieve([*SMALL, *flags, str(tmp_path / "texts")])
    caption_main.main(
        [
            *CAPTIONING,
            *flags,
            str(tmp_path / "captions"),
            "--evaluate",
            "--no-evaluate-java",
            "--evaluate-clip",
            "demo-reward",
            "--evaluate-prefix",
            "",
        ]
    )
    assert Results(tmp_path / "classes").metrics["hf:set"]["n"] == 6
    assert Results(tmp_path / "texts").metrics["hf:set-t2i"]["n"] == 9
    assert Results(tmp_path / "captions").metrics["hf:set"]["adapted"]["CLIPScore"] > 0
    assert (tmp_path / "classes" / "hf-set" / "classnames.txt").read_text() == "pig\ncrab\nhorse\n"
