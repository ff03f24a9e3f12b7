"""Image classification, adapting CLIP to one image at a time.

Each image's views are ranked by the entropy of their zero-shot logits; the most confident ones are learnt from for a
few steps, the image is answered, and the weights are put back.
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("classification.main")

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from classification.classifier import Classifier, check_classes
from classification.config import ClassificationConfig
from classification.datasets import Dataset, load_dataset
from classification.doubt import labels_doubtful
from classification.metrics import TOP1, as_line, describe, summarise
from rlcf.adapt.trace import Outcome
from rlcf.adapt.views import PlannedViews
from rlcf.inputs.stored import Columns
from rlcf.run.files import write_atomically
from rlcf.run.images import ImageLoader, Loaded
from rlcf.run.loop import Work, run_samples
from rlcf.run.records import Record, Run, shuffled
from rlcf.run.report import NON_FINITE, OK, report
from rlcf.run.setup import Models, Setup

EPILOG = """examples:
  python classification/main.py --config classification/configs/rlcf-prompt.yaml --data ROOT --datasets A V R K
  python classification/main.py --method zeroshot --student ViT-B-32:laion2b_s34b_b79k --data IMAGES --datasets folder
  torchrun --nproc-per-node 4 classification/main.py --config classification/configs/rlcf-tune-single.yaml --data ROOT

The run folder gets config.yaml, log.txt, results.json and <dataset>/records.jsonl. The same command again goes on with
a run that was stopped. Presets: classification/configs/.
"""


def run_dataset(config: ClassificationConfig, dataset: Dataset, models: Models, run: Run) -> None:
    """Adapt to every image of a dataset, record it, and report."""
    config = replace(
        config, images_at_once=min(config.images_at_once, len(shuffled(len(dataset.ids), config.seed, config.limit)))
    )
    classifier, device = Classifier.of(config, models, dataset.classnames), models.student.device
    published = config.reads_as_published(dataset.published)

    def read(indices: Sequence[int]) -> Iterator[Loaded]:
        draft = models.student.size if config.draft_jpeg else None
        loader = ImageLoader(dataset.files, indices, classifier.views, draft, published)
        return loader.one_by_one(config.workers, device.type == "cuda")

    def describe_outcome(index: int, outcome: Outcome) -> tuple[Record, Mapping[str, Tensor]]:
        before, answer = outcome.before, outcome.answer
        record: Record = {"status": NON_FINITE if outcome.after is None else OK}
        record |= describe("zero_shot", before) | describe("adapted", answer)
        record |= {"steps": [step.as_record() for step in outcome.trace]} | ({"gated": True} if outcome.gated else {})
        return record, {"zero_shot": before, "adapted": answer} if config.save_logits else {}

    work: Work[Tensor | PlannedViews, Outcome] = Work(
        name=dataset.name,
        ids=dataset.ids,
        samples=read,
        adapt=classifier.adapt,
        about=lambda index: {"label": dataset.samples[index][1]},
        describe=describe_outcome,
        figure=TOP1,
        at_once=config.images_at_once,
        memory=classifier.memory,
        arrays=dict.fromkeys(("zero_shot", "adapted"), len(dataset.classnames)) if config.save_logits else {},
        described={"classnames": json.dumps(dataset.classnames)},
        contents={**dataset.digests, **classifier.digests},
    )
    records = run_samples(work, config, run)
    if run.shard.first:
        names = "".join(f"{name}\n" for name in dataset.classnames)
        write_atomically(run.folder_of(dataset.name) / "classnames.txt", names)
    summary = summarise(records)
    doubt = labels_doubtful(records)
    if doubt:
        summary["doubt"] = doubt
        run.tell([f"{dataset.name}: {doubt}"])
    report(
        run,
        dataset.name,
        summary,
        as_line(dataset.name, config.method if config.how.changes_answer else None, summary),
        device,
    )


def main(argv: list[str] | None = None) -> None:
    setup = Setup.of_command(ClassificationConfig, argv, __doc__ or "", EPILOG)
    config = setup.config
    columns = Columns(config.hf_config, config.image_column, config.label_column)
    datasets = [
        load_dataset(name, config.data, config.corruption, config.severity, config.classnames, columns)
        for name in config.datasets
    ]
    for dataset in datasets:
        check_classes(config, len(dataset.classnames), dataset.name)
    with setup.open_run() as run:
        models = setup.load_models()
        for dataset in datasets:
            run.tell(dataset.notes)
            run_dataset(config, dataset, models, run)
