"""A classification run: every image of its datasets is adapted to, recorded and reported."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from classification.classifier import Classifier
from classification.config import ClassificationConfig
from classification.datasets import Dataset
from classification.metrics import CONFIDENCE, TOP1, about, as_line, describe, kinds, summarise, write_csv
from rlcf.adapt.trace import Outcome, ending
from rlcf.adapt.views import PlannedViews
from rlcf.inputs.sources import folder_of
from rlcf.run.dealing import shuffled
from rlcf.run.files import write_atomically
from rlcf.run.images import ImageLoader, Loaded
from rlcf.run.loop import Work, run_samples
from rlcf.run.record_lines import Record
from rlcf.run.run import Run
from rlcf.run.setup import Models, Setup
from rlcf.run.summary import NON_FINITE, OK, report

PREDICTIONS = "predictions.csv"
"""The answers to images without labels, in the dataset's folder."""


def run_dataset(config: ClassificationConfig, dataset: Dataset, models: Models, run: Run) -> None:
    """Adapt to every image of a dataset, record it, and report."""
    config = replace(
        config, images_at_once=min(config.images_at_once, len(shuffled(len(dataset.ids), config.seed, config.limit)))
    )
    classifier, device = Classifier.of(config, models, dataset.classnames), models.student.device
    published = config.reads_as_published(dataset.published)

    def read(indices: Iterable[int]) -> Iterator[Loaded]:
        draft = models.student.size if config.draft_jpeg else None
        loader = ImageLoader(dataset.files, indices, classifier.views, draft, published)
        return loader.one_by_one(config.workers, device.type == "cuda")

    def describe_outcome(index: int, outcome: Outcome) -> tuple[Record, Mapping[str, Tensor]]:
        before, answer = outcome.before, outcome.answer
        record: Record = {"status": NON_FINITE if outcome.after is None else OK}
        record |= describe(outcome, dataset.classnames) | ending(outcome.trace, outcome.settled, outcome.gated)
        return record, {"zero_shot": before, "adapted": answer} if config.save_logits else {}

    work: Work[Tensor | PlannedViews, Outcome] = Work(
        name=dataset.name,
        ids=dataset.ids,
        samples=read,
        adapt=classifier.adapt,
        about=lambda index: about(dataset.samples[index][1], dataset.classnames),
        describe=describe_outcome,
        kinds=lambda record: kinds(record, dataset.classnames, config.steps, config.views),
        figure=TOP1 if dataset.labelled else CONFIDENCE,
        at_once=config.images_at_once,
        memory=classifier.memory,
        arrays=dict.fromkeys(("zero_shot", "adapted"), len(dataset.classnames)) if config.save_logits else {},
        described={"classnames": json.dumps(dataset.classnames)},
        contents={**dataset.digests, **classifier.digests},
        images=folder_of(dataset.files[0], dataset.ids[0]),
    )
    records = run_samples(work, config, run)
    run.shard.let_first(lambda: write_results(config, dataset, records, run, device))


def write_results(
    config: ClassificationConfig, dataset: Dataset, records: Iterable[Record], run: Run, device: torch.device
) -> None:
    """Write the class names and the report, and the answers to images without labels."""
    folder, summary = run.folder_of(dataset.name), summarise(records)
    write_atomically(folder / "classnames.txt", "".join(f"{name}\n" for name in dataset.classnames))
    line = as_line(dataset.name, config.method if config.how.changes_answer else None, summary)
    if not dataset.labelled:
        write_csv(folder / PREDICTIONS, records)
        line += f"; {folder / PREDICTIONS}"
    if "doubt" in summary:
        run.tell([f"{dataset.name}: {summary['doubt']}"])
    report(run, dataset.name, summary, line, device)


def run(config: ClassificationConfig, datasets: Sequence[Dataset]) -> None:
    """Adapt to every image of the datasets. Raises UserError as `Setup.of_config`, `Run` and `load_models`."""
    setup = Setup.of_config(config)
    with setup.open_run() as run:
        models = setup.load_models()
        for dataset in datasets:
            run.tell(dataset.notes)
            run_dataset(config, dataset, models, run)
