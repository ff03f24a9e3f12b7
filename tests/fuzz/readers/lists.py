"""Lists of captioned images in every form, for each of the tasks."""

import json
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import caption.extract_features
import caption.main
import clipscore.main
import retrieval.main
from tests.fuzz.files import Tree, read_tree
from tests.fuzz.models import mapper, with_models
from tests.fuzz.reader import Reader
from tests.tools import write_picture

IMAGES = ["a.png", "b.png", "train2014/COCO_train2014_000000000003.jpg"]


def pictures(*names: str) -> Tree:
    """Pictures of noise by their names."""
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            write_picture(Path(folder) / name, number, (20, 16))
        return read_tree(Path(folder))


TEXTS_OF = [["a dog above an owl", "an owl below a dog"], ["a cat"], ["a key", "a pig", "a car"]]
LISTED = [{"image": image, "caption": texts} for image, texts in zip(IMAGES, TEXTS_OF, strict=True)]
COCO = {
    "info": {"year": 2014},
    "images": [{"id": i, "file_name": image, "height": 16, "width": 20} for i, image in enumerate(IMAGES)],
    "annotations": [
        {"id": 10 * i + j, "image_id": i, "caption": text}
        for i, texts in enumerate(TEXTS_OF)
        for j, text in enumerate(texts)
    ],
}
NOCAPS = {**COCO, "images": [{**image, "domain": "in-domain", "coco_url": "x"} for image in COCO["images"]]}  # type: ignore[attr-defined]
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filename": Path(image).name,
            "filepath": str(Path(image).parent),
            "cocoid": i,
            "imgid": i,
            "split": "test",
            "sentids": list(range(len(texts))),
            "sentences": [
                {"raw": text, "tokens": text.split(), "imgid": i, "sentid": j} for j, text in enumerate(texts)
            ],
        }
        for i, (image, texts) in enumerate(zip(IMAGES, TEXTS_OF, strict=True))
    ],
}
ONE_EACH = [{"image": image, "caption": text} for image, texts in zip(IMAGES, TEXTS_OF, strict=True) for text in texts]
FORMS = {"listed": LISTED, "one each": ONE_EACH, "coco": COCO, "nocaps": NOCAPS, "karpathy": KARPATHY}
RESULTS = [{"image_id": i, "caption": texts[0]} for i, texts in enumerate(TEXTS_OF)]


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def list_seeds(folder: Path) -> dict[str, Tree]:
    own = {f"data/{name}": content for name, content in pictures(*IMAGES).items()}
    return {name: {"data/list.json": as_json(form), **own} for name, form in FORMS.items()}


QUICK = ["--workers", "0", "--device", "cpu", "--student", "tiny", "--method", "zeroshot"]


def flags(folder: Path, *more: object) -> list[str]:
    return [*map(str, ["--data", folder / "data", "--output", folder / "run", *more])]


def read_retrieval_list(folder: Path, seed: str, beside: Path) -> None:
    more = ["--datasets", "json:list", "--direction", "both", *QUICK, "--limit", 3]
    with_models(lambda: retrieval.main.main(flags(folder, *more)))


def checkpoint_beside(folder: Path) -> Path:
    file = folder / "mapper.safetensors"
    save_file({f"clip_project.{name}": tensor.detach().clone() for name, tensor in mapper().state_dict().items()}, file)
    return file


def read_caption_list(folder: Path, seed: str, beside: Path) -> None:
    more = ["--datasets", "json:list", *QUICK, "--checkpoint", checkpoint_beside(folder), "--beams", 1]
    more += ["--max-new-tokens", 2, "--language-model", "tiny", "--limit", 2, "--skip-bad-images"]
    with_models(lambda: caption.main.main(flags(folder, *more)))


def read_extraction_list(folder: Path, seed: str, beside: Path) -> None:
    more = ["--captions", "list.json", "--student", "tiny", "--workers", 0, "--device", "cpu", "--skip-bad-images"]
    with_models(lambda: caption.extract_features.main(flags(folder, *more)))


def clipscore_seeds(folder: Path) -> dict[str, Tree]:
    own = {f"images/{name}": content for name, content in pictures(*IMAGES).items()}
    candidates = {image: texts[0] for image, texts in zip(IMAGES, TEXTS_OF, strict=True)}
    references = dict(zip(IMAGES, TEXTS_OF, strict=True))
    pairs = {
        "own": (candidates, references),
        "names": ({"a": "a dog"}, {"a": "a dog"}),
        "results": (RESULTS, COCO),
        "karpathy": (candidates, KARPATHY),
        "listed": (candidates, LISTED),
    }
    return {
        name: {"candidates.json": as_json(first), "references.json": as_json(second), **own}
        for name, (first, second) in pairs.items()
    }


def read_scores(folder: Path, seed: str, beside: Path) -> None:
    argv = [folder / "candidates.json", folder / "images", "--references", folder / "references.json", "--no-java"]
    argv += ["--clip", "tiny", "--workers", 0, "--device", "cpu", "--output", folder / "scores.json"]
    with_models(lambda: clipscore.main.main([*map(str, argv)]))


_OF_LISTS = ("*.json",)
LISTS = [
    Reader("retrieval-lists", list_seeds, read_retrieval_list, 6, _OF_LISTS, command=True),
    Reader("caption-lists", list_seeds, read_caption_list, 6, _OF_LISTS, command=True),
    Reader("extraction-lists", list_seeds, read_extraction_list, 6, _OF_LISTS, refused=("karpathy",), command=True),
    Reader("clipscore", clipscore_seeds, read_scores, 10, _OF_LISTS, refused=("results",), command=True),
]
