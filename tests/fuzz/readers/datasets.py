"""Datasets: split files, class names, and those that the library `datasets` stores."""

from pathlib import Path
from unittest.mock import patch

import datasets

import classification.main
import retrieval.main
from tests.fuzz.files import Tree, read_tree
from tests.fuzz.models import with_models
from tests.fuzz.reader import Reader
from tests.fuzz.readers.lists import QUICK, as_json, flags, pictures


def split_seeds(folder: Path) -> dict[str, Tree]:
    paths = [f"{name}/{number}.jpg" for name in ("cat", "sea_lion") for number in range(2)]
    own = {f"data/dtd/images/{name}": content for name, content in pictures(*paths).items()}
    rows = [[path, label // 2, path.split("/")[0]] for label, path in enumerate(paths)]
    split = {"train": rows[:1], "val": rows[2:3], "test": rows}
    planes = {f"data/fgvc_aircraft/images/{name}": content for name, content in pictures("1.jpg", "2.jpg").items()}
    lists = {"variants.txt": b"707-320\nA 380\n", "images_variant_test.txt": b"1 707-320\n2 A 380\n"}
    return {
        "dtd": {"data/dtd/split_zhou_DescribableTextures.json": as_json(split), **own},
        "aircraft": {**{f"data/fgvc_aircraft/{name}": content for name, content in lists.items()}, **planes},
    }


def classify(folder: Path, *more: object) -> None:
    all_flags = flags(folder, *more, *QUICK, "--views", 2, "--selection", 1.0, "--limit", 4, "--skip-bad-images")
    with_models(lambda: classification.main.main(all_flags))


def class_seeds(folder: Path) -> dict[str, Tree]:
    own = pictures("cat/0.png", "dog/0.png", "sea lion/0.png")
    own = {f"data/{name}": content for name, content in own.items()}
    return {"names": {"names.txt": b"a cat\na dog\na sea lion\n", **own}}


def stored_seeds(folder: Path) -> dict[str, Tree]:
    """Of the library `datasets`: parquet files, and a folder that it saved."""
    images = [{"bytes": content, "path": name} for name, content in pictures(*map("{}.png".format, range(4))).items()]
    labelled = datasets.Dataset.from_dict(
        {"image": images, "label": [0, 1, 1, 0]},
        datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}),
    )
    texts = [[f"a dog above {number}", "a cat"] for number in range(4)]
    listed = datasets.List(datasets.Value("string"))
    captioned = datasets.Dataset.from_dict(
        {"image": images, "caption": texts}, datasets.Features({"image": datasets.Image(), "caption": listed})
    )
    for name, held in (("labelled", labelled), ("captioned", captioned)):
        (folder / name / "set" / "data").mkdir(parents=True)
        held.to_parquet(str(folder / name / "set" / "data" / "test-00000-of-00001.parquet"), batch_size=2)
    labelled.save_to_disk(str(folder / "saved" / "set"))
    return {
        name: {f"data/{file}": content for file, content in read_tree(folder / name).items()}
        for name in ("labelled", "captioned", "saved")
    }


def read_stored(folder: Path, seed: str, beside: Path) -> None:
    datasets.disable_progress_bars()
    with (
        patch.object(datasets.config, "HF_DATASETS_CACHE", folder / "cache"),
        patch.object(datasets.config, "HF_HUB_OFFLINE", True),
    ):
        if seed == "captioned":
            all_flags = flags(folder, "--datasets", "hf:set", "--direction", "both", *QUICK, "--limit", 3)
            with_models(lambda: retrieval.main.main(all_flags))
        else:
            classify(folder, "--datasets", "hf:set")


DATASETS = [
    Reader(
        "splits",
        split_seeds,
        lambda folder, seed, beside: classify(folder, "--datasets", seed),
        6,
        ("*.json", "*.txt"),
        command=True,
    ),
    Reader(
        "class-names",
        class_seeds,
        lambda folder, seed, beside: classify(folder, "--datasets", "folder", "--classnames", folder / "names.txt"),
        4,
        ("names.txt",),
        command=True,
    ),
    Reader("stored", stored_seeds, read_stored, 6, command=True),
]
