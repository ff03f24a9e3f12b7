"""Image captioning, adapting the captioner to one image at a time.

The captioner proposes its most likely captions of an image, the reward model scores them, the mapper learns from that
for a few steps, the image is captioned, and the weights are put back.
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("caption.main")

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from caption.captioner import Answer, Captioner, CaptionModels, load_caption_models
from caption.config import CaptionConfig
from caption.datasets import Dataset, load_dataset
from caption.evaluate import Evaluator, write_captions
from caption.metrics import REWARD, as_line, by_domain, describe, summarise
from rlcf.adapt.views import PlannedViews
from rlcf.inputs.stored import Columns
from rlcf.run.images import ImageLoader, Loaded
from rlcf.run.loop import Work, run_samples
from rlcf.run.records import Record, Run, shuffled
from rlcf.run.report import NON_FINITE, OK, report
from rlcf.run.setup import Setup

EPILOG = """examples:
  python caption/main.py --config caption/configs/tta-clipcap-c2f-single.yaml --data ROOT --checkpoint RUN
  python caption/main.py --method zeroshot --checkpoint RUN --data IMAGES --datasets folder
  torchrun --nproc-per-node 4 caption/main.py --config tta-capdec-c2n-single --data ROOT --checkpoint ckpt-latest.pt

The run folder gets config.yaml, log.txt, results.json and, per dataset, records.jsonl, candidates.json,
candidates-zero-shot.json and references.json, which clipscore/main.py reads. The same command again goes on with a run
that was stopped. Presets: caption/configs/.
"""


def run_dataset(config: CaptionConfig, dataset: Dataset, models: CaptionModels, evaluator: Evaluator, run: Run) -> None:
    """Adapt to every image of a dataset, record it, and report."""
    count = len(shuffled(len(dataset.ids), config.seed, config.limit))
    config = replace(config, images_at_once=min(config.images_at_once, count))
    captioner, device = Captioner.of(config, models), models.student.device
    published = config.reads_as_published(dataset.published)

    def read(indices: Sequence[int]) -> Iterator[Loaded]:
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
        figure=REWARD,
        at_once=config.images_at_once,
        memory=captioner.memory,
        contents={**dataset.digests, **models.digests},
    )
    records = run_samples(work, config, run)
    if run.shard.first:
        write_results(config, dataset, records, evaluator, run, device)


def write_results(
    config: CaptionConfig, dataset: Dataset, records: list[Record], evaluator: Evaluator, run: Run, device: torch.device
) -> None:
    """Write the captions and the report, of all images and of each domain's, then the scores if they are asked for."""
    folder, summary = run.folder_of(dataset.name), summarise(records)
    parts = [(folder, records, summary)]
    for domain, own in by_domain(records).items():
        parts.append((folder / domain, own, summarise(own)))
        summary.setdefault("domains", {})[domain] = parts[-1][-1]
    for place, own, _ in parts:
        write_captions(place, own)
    report(run, dataset.name, summary, as_line(dataset.name, config.method, summary), device)
    if config.evaluate:
        for place, own, told in parts:
            evaluator.score(place, own, dataset, told)
        run.report(dataset.name, summary)


def main(argv: list[str] | None = None) -> None:
    setup = Setup.of_command(CaptionConfig, argv, __doc__ or "", EPILOG)
    config = setup.config
    columns = Columns(config.hf_config, config.image_column, config.caption_column)
    datasets = [load_dataset(name, config.data, columns) for name in config.datasets]
    with setup.open_run() as run:
        models = load_caption_models(setup)
        evaluator = Evaluator(config, setup.device)
        for dataset in datasets:
            run.tell(dataset.notes)
            run_dataset(config, dataset, models, evaluator, run)
