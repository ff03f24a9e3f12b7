"""The catalogue's facts against those that installed libraries and the tasks know, and `rlcf-data list`."""

import re
import subprocess
import sys

import open_clip
import pytest
import torchvision.datasets as tv

import caption.datasets
import classification.datasets
import retrieval.datasets
from rlcf.clip.loading import OPENAI_ARCHITECTURES, openai_file_name
from rlcf.data.catalogue import ALIASES, CATALOGUE, entry_of, known, remedy
from rlcf.data.catalogue.weights import CLIPS, OPENAI_FILES
from rlcf.data.entries import Machine
from rlcf.data.main import main
from rlcf.errors import UserError
from rlcf.inputs.places import find
from tests.tools import ROOT


def test_openais_files_have_the_addresses_that_open_clip_knows():
    for name, architecture in OPENAI_ARCHITECTURES.items():
        file, sha256, _ = OPENAI_FILES[name]
        (download,) = entry_of(name).downloads
        assert download.urls == (open_clip.get_pretrained_cfg(architecture, "openai")["url"],)
        assert download.digest == f"sha256:{sha256}" and sha256 in download.urls[0] and file == openai_file_name(name)
    assert len(CLIPS) == len(OPENAI_ARCHITECTURES)


def test_the_fine_grained_sets_have_the_addresses_that_torchvision_knows():
    urls = {name: {url for d in entry_of(name).downloads for url in d.urls} for name in ("dtd", "food101", "aircraft")}
    assert (
        tv.DTD._URL in urls["dtd"] and tv.Food101._URL in urls["food101"] and tv.FGVCAircraft._URL in urls["aircraft"]
    )
    assert tv.OxfordIIITPet._RESOURCES[0][0] in {url for d in entry_of("pets").downloads for url in d.urls}


def test_every_dataset_of_the_tasks_is_in_the_catalogue():
    tasks = (classification.datasets, retrieval.datasets, caption.datasets)
    named = {
        name
        for task in tasks
        for name in task.NAMES
        if name.partition(":")[0] not in ("folder", "json", "hf", "images")
    }
    assert named and all(known(name) for name in named)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_entry_is_whole(name):
    entry = CATALOGUE[name]
    assert entry.title and entry.use and entry.licence and entry.page.startswith("https://")
    assert entry.downloads or entry.steps
    assert entry.home.endswith(entry.folders[0]) or entry.kind == "clip"
    for download in entry.downloads:
        assert all(url.startswith(("https://", "http://")) for url in download.urls)
        assert download.digest is None or re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", download.digest)
        assert download.unpack or download.to


def test_aliases_name_entries_in_any_case():
    assert all(entry in CATALOGUE for entry in ALIASES.values())
    assert known("ImageNet-A") is known("imagenet-a") is CATALOGUE["A"]
    assert known("nocaps-in-domain") is CATALOGUE["nocaps"] and known("facebook/opt-125m") is CATALOGUE["opt-125m"]
    assert known("folder:x") is None


def test_a_dataset_that_is_not_found_is_told_with_what_gets_it(tmp_path):
    with pytest.raises(UserError, match=r"dataset A was not found; tried .*; '.* get A' with this --data gets it"):
        find("A", [tmp_path / "imagenet-a"])
    assert remedy("json:list") == ""


def test_the_list_tells_what_is_there(tmp_path, capsys):
    (tmp_path / "imagenet-r" / "n01443537").mkdir(parents=True)
    main(["list", "--data", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CATALOGUE) + 2 and lines[-1].startswith(f"1 of {len(CATALOGUE)} are there")
    rows = {line.split()[0]: line for line in lines}
    assert re.match(rf"R +there +2\.2 GB +MIT +{tmp_path}/imagenet-r$", rows["R"])
    assert re.match(rf"A +missing +688 MB +MIT +{tmp_path}/imagenet-a$", rows["A"])  # beside the other
    assert rows["dtd"].endswith(f" {tmp_path}/dataset/finegrained-dataset/dtd")  # where `get` puts it


def test_the_list_tells_all_of_an_entry(tmp_path, capsys):
    main(["list", "V", "ViT-B/16", "cars", "--data", str(tmp_path)])
    told = capsys.readouterr().out
    assert (
        "dead: https://s3-us-west-2.amazonaws.com/imagenetv2public/" in told and "10,000 images, 1,000 classes" in told
    )
    assert "sha256:5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f" in told
    assert "jessicali9530/stanford-cars-dataset" in told and "no published checksum known" in told


def test_folders_come_from_flags_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RLCF_ROOT", "~/rlcf")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Machine.of() == Machine(tmp_path / "rlcf", tmp_path / "rlcf" / "pretrained" / "clip")
    monkeypatch.setenv("CLIP_ROOT", "/clips")
    assert Machine.of("/data", None).clip_root.as_posix() == "/clips"
    assert Machine.of("/data", "/other").flags == " --data /data --clip-root /other"


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*; give --data, or set RLCF_ROOT"):
        main(["list", "--data", str(tmp_path / "nothing")])


def test_the_document_names_every_entry_with_its_numbers_and_files():
    text = (ROOT / "docs" / "data.md").read_text()
    for entry in CATALOGUE.values():
        assert re.search(rf"[\s|`(]{re.escape(entry.name)}[\s|`,.)]", text), entry.name
        assert entry.kind == "clip" or entry.folders[0].rpartition("/")[2] in text, entry.name
        if entry.expected is not None:
            assert f"{entry.expected.images:,}" in text, entry.name
            assert entry.expected.captions is None or f"{entry.expected.captions:,}" in text, entry.name
        for address in entry.dead:
            assert "dead" in text, address


def test_listing_and_looking_load_no_torch(tmp_path):
    code = (
        "import sys; from rlcf.data.main import main; main(['list']); "
        "main(['need', 'classification/main.py', '--datasets', 'folder']); "
        "sys.exit('torch' in sys.modules or 'open_clip' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
