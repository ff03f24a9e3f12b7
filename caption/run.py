"""A captioning run: every image of its datasets is adapted to, recorded and reported."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from caption.captioner import Answer, Captioner, CaptionModels, load_caption_models
from caption.config import CaptionConfig
from caption.datasets import Dataset
from caption.evaluate import Evaluator, write_captions
from caption.metrics import REWARD, as_line, by_domain, describe, kinds, scores_as_line, summarise
from rlcf.adapt.views import PlannedViews
from rlcf.inputs.sources import folder_of
from rlcf.run.dealing import shuffled
from rlcf.run.images import ImageLoader, Loaded
from rlcf.run.loop import Work, run_samples
from rlcf.run.record_lines import Record
from rlcf.run.run import Run
from rlcf.run.setup import Setup
from rlcf.run.summary import NON_FINITE, OK, Summary, report


def run_dataset(config: CaptionConfig, dataset: Dataset, models: CaptionModels, evaluator: Evaluator, run: Run) -> None:
    """Adapt to every image of a dataset, record it, and report."""
    count = len(shuffled(len(dataset.ids), config.seed, config.limit))
    config = replace(config, images_at_once=min(config.images_at_once, count))
    captioner, device = Captioner.of(config, models), models.student.device
    published = config.reads_as_published(dataset.published)

    def read(indices: Iterable[int]) -> Iterator[Loaded]:
        loader = ImageLoader(dataset.files, indices, captioner.views, published=published)
        return loader.one_by_one(config.workers, device.type == "cuda")

    def about(index: int) -> Record:
        sample = dataset.samples[index]
        return {"references": sample.captions} | ({"domain": sample.domain} if sample.domain else {})

    def describe_answer(index: int, answer: Answer) -> tuple[Record, Mapping[str, Tensor]]:
        return {"status": OK if answer.finite else NON_FINITE} | describe(answer), {}

    work: Work[Tensor | PlannedViews, Answer] = Work(
        name=dataset.name,
        ids=dataset.ids,
        samples=read,
        adapt=captioner.adapt,
        about=about,
        describe=describe_answer,
        kinds=lambda record: kinds(record, config.steps),
        figure=REWARD,
        at_once=config.images_at_once,
        memory=captioner.memory,
        contents={**dataset.digests, **models.digests},
        images=folder_of(dataset.files[0], dataset.ids[0]),
    )
    records = run_samples(work, config, run)
    run.shard.let_first(lambda: write_results(config, dataset, records, evaluator, run, device))


def write_results(
    config: CaptionConfig,
    dataset: Dataset,
    records: Iterable[Record],
    evaluator: Evaluator,
    run: Run,
    device: torch.device,
) -> None:
    """Write the captions and the report, of all images and of each domain's, then the scores if they are asked for."""
    folder, summary = run.folder_of(dataset.name), summarise(records)
    parts: list[tuple[Path, Iterable[Record], Summary]] = [(folder, records, summary)]
    for domain, of_domain in by_domain(records).items():
        parts.append((folder / domain, of_domain, summarise(of_domain)))
        summary.setdefault("domains", {})[domain] = parts[-1][-1]
    for place, own, _ in parts:
        write_captions(place, own)
    report(run, dataset.name, summary, as_line(dataset.name, config.method, summary), device)
    if config.evaluate:
        lines = []
        for place, own, told in parts:
            evaluator.score(place, own, dataset, told)
            name = dataset.name if place == folder else f"{dataset.name}, {place.name}"
            lines.append(scores_as_line(name, config.method, told, config.evaluate_clip))
        run.report(dataset.name, summary)
        print("\n".join(reversed(lines)), flush=True)  # that of all images is the last


def run(config: CaptionConfig, datasets: Sequence[Dataset]) -> None:
    """Adapt to every image of the datasets. Raises UserError as `Setup.of_config`, `Run` and `load_caption_models`."""
    setup = Setup.of_config(config)
    with setup.open_run() as run:
        models = load_caption_models(setup)
        evaluator = Evaluator(config, setup.device)
        for dataset in datasets:
            run.tell(dataset.notes)
            run_dataset(config, dataset, models, evaluator, run)
