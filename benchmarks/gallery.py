"""Memory of image to text with a gallery of a million texts, on simulated features.

    python benchmarks/gallery.py --texts 1000000

takes the path of a run: the features of the student (512 wide) and of the reward model (768 wide) are made batch by
batch, written to the run folder and read from there, then each query takes its steps against the whole gallery and gets
its record. Features are random, and the models around them tiny, so that the numbers are those of the gallery; the
models of a real run come on top (fp32: ViT-B/16 0.6 GB, ViT-L/14 1.7 GB). For each stage the table tells the resident
size at its end, how much of that is the process's own and how much is mapped from files, which the system takes back
when memory is short, and the highest resident size in it.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import TINY, build_one, check_writable, count
from benchmarks.measure import forget_peak, peak_mb
from retrieval.config import RetrievalConfig
from retrieval.datasets import Dataset
from retrieval.features import FrozenFeatures
from retrieval.metrics import describe, describe_names
from retrieval.retriever import Retriever, make_rewards
from retrieval.reward import Query
from rlcf.clip.backbone import Backbone
from rlcf.digests import digest_of
from rlcf.errors import run_main
from rlcf.run.config import command_line
from rlcf.run.files import write_atomically
from rlcf.run.folder import versions
from rlcf.run.memory import keep_freed_memory
from rlcf.run.parser import Parser
from rlcf.run.setup import Models
from rlcf.run.shard import Shard

CPU = torch.device("cpu")
TEXTS_AN_IMAGE = 5
STUDENT, REWARD = 512, 768
"""Widths of the features of ViT-B/16 and ViT-L/14."""
PUBLISHED = RetrievalConfig(direction="i2t", sample_k=20, steps=8, lr=1e-6, weight_decay=5e-4, eps=1e-6)
CONFIGS = {
    "rlcf": PUBLISHED,
    "rlcf, candidates of both models": replace(PUBLISHED, candidates="both"),
    "kd": replace(PUBLISHED, method="kd"),
}


@dataclass(frozen=True)
class Simulated(Backbone):
    """A tiny CLIP whose texts have random features; the text tower is not asked."""

    def encode_text(self, texts: Sequence[str], desc: str | None = None) -> Tensor:
        seed = int(digest_of([self.name, texts[0]])[:8], 16)
        width = self.model.visual.output_dim
        return F.normalize(torch.randn(len(texts), width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def simulated(name: str, width: int, seed: int) -> Simulated:
    return Simulated(**vars(build_one(name, TINY | {"embed_dim": width}, seed, CPU)))


def dataset_of(texts: int) -> Dataset:
    """Images with five texts each, whose texts are as long as COCO's."""
    images = range(texts // TEXTS_AN_IMAGE)
    files = [Path("val2014") / f"COCO_val2014_{image:012d}.jpg" for image in images]
    captions = [
        [f"a man rides a brown horse along beach number {image} {text}" for text in range(TEXTS_AN_IMAGE)]
        for image in images
    ]
    return Dataset("million", [*files], [file.as_posix() for file in files], captions)


@dataclass(frozen=True)
class Stage:
    """Seconds of a stage, and memory in MB: resident, own and mapped at its end, and the highest resident size."""

    name: str
    seconds: float
    resident: float
    own: float
    mapped: float
    peak: float


class Stages:
    """The stages so far; each `done` ends one."""

    def __init__(self) -> None:
        self.found: list[Stage] = []
        self._begin()

    def _begin(self) -> None:
        forget_peak(CPU)
        self.started = time.perf_counter()

    def done(self, name: str) -> None:
        seconds, status = time.perf_counter() - self.started, Path("/proc/self/status").read_text()
        resident, own, mapped = (
            int(re.search(rf"{key}:\s*(\d+) kB", status)[1]) / 1024  # type: ignore[index]
            for key in ("VmRSS", "RssAnon", "RssFile")
        )
        self.found.append(Stage(name, seconds, resident, own, mapped, peak_mb(CPU)))
        print(_cells(self.found[-1]), flush=True)
        self._begin()


def _cells(stage: Stage) -> str:
    numbers = (stage.resident, stage.own, stage.mapped, stage.peak)
    return f"{stage.name:40} {stage.seconds:9.1f} " + " ".join(f"{number:9.0f}" for number in numbers)


def run(texts: int, queries: int, folder: Path) -> list[Stage]:
    """Every stage of image to text with so many texts. folder: for the features."""
    head = ("seconds", "resident", "own", "mapped", "peak, MB")
    print(f"{f'{texts} texts':40} " + " ".join(f"{word:>9}" for word in head))
    stages = Stages()
    student, reward = simulated("student", STUDENT, 0), simulated("reward", REWARD, 1)
    stages.done("Python, torch, tiny models")
    dataset = dataset_of(texts)
    places = range(len(dataset.texts))
    digest_of(dataset.captions)
    stages.done("the list of texts")
    features = FrozenFeatures(folder, dataset, student, Shard())
    features.texts([student, reward], places)
    stages.done("features made and written")
    gallery, of_reward = features.texts([student, reward], places)
    stages.done("features read again, checked")
    for name, config in CONFIGS.items():
        models = Models(student, [reward])
        rewards = make_rewards(config, models, {0: of_reward}, dataset.texts)
        retriever = Retriever.of(config, models, gallery, rewards, dataset.texts)
        for query in range(queries):
            generator = torch.Generator().manual_seed(query)
            view = torch.randint(0, 256, (1, 3, *student.size), dtype=torch.uint8, generator=generator)
            seen = {0: reward.encode_image(reward.prepare(view))[0]}
            (outcome,) = retriever.adapt([(query, Query(view, seen))])
            targets = dataset.targets("i2t", query)
            record = {"targets": targets} | describe("zero_shot", outcome.before, targets)
            record |= describe("adapted", outcome.answer, targets)
            describe_names(record, outcome.trace, dataset.texts)
        stages.done(f"{name}: {queries} queries")
    return stages.found


def main(argv: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=count, default=1_000_000, metavar="N", help="of the gallery (1000000)")
    parser.add_argument("--queries", type=count, default=3, metavar="N", help="of each method (3)")
    parser.add_argument("--threads", type=count, default=2, metavar="N", help="of torch (2)")
    parser.add_argument("--folder", type=Path, help="where the features go, 5 KB a text, until the end")
    default = Path("output/benchmarks/gallery.json")
    parser.add_argument("--output", type=Path, default=default, metavar="FILE", help=f"JSON of the table ({default})")
    options = parser.parse_args(argv)
    check_writable(options.output)
    torch.set_num_threads(options.threads)
    if argv is None:
        keep_freed_memory()  # as a run does
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        stages = run(max(options.texts, 2 * TEXTS_AN_IMAGE * PUBLISHED.sample_k), options.queries, Path(folder))
    print(f"highest resident size: {max(stage.peak for stage in stages) / 1024:.2f} GiB")
    told = {"command": command_line(), "texts": options.texts, "versions": versions()}
    write_atomically(options.output, json.dumps(told | {"stages": [vars(stage) for stage in stages]}, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
