"""A retrieval run: every query of its datasets is adapted to, recorded and reported."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from retrieval.config import RetrievalConfig
from retrieval.datasets import Dataset
from retrieval.features import FrozenFeatures
from retrieval.metrics import R1, as_line, both_as_line, both_directions, describe, describe_names, kinds, summarise
from retrieval.retriever import Retriever, make_rewards
from retrieval.reward import Query, reward_clips
from rlcf.adapt.groups import Unreadable
from rlcf.adapt.trace import Outcome, ending
from rlcf.adapt.views import Views
from rlcf.clip.backbone import Backbone
from rlcf.digests import digest_of
from rlcf.inputs.sources import folder_of
from rlcf.run.dealing import shuffled
from rlcf.run.images import ImageLoader
from rlcf.run.loop import Work, run_samples
from rlcf.run.record_lines import Record
from rlcf.run.run import Run
from rlcf.run.setup import Models, Setup
from rlcf.run.summary import NON_FINITE, OK, Summary, report


def run_direction(
    config: RetrievalConfig, features: FrozenFeatures, models: Models, queries: Sequence[int], run: Run
) -> Summary:
    """Adapt to every query of a dataset in one direction and record it. queries: those whose features are needed."""
    dataset, student, direction = features.dataset, models.student, config.direction
    name = f"{dataset.name}-{direction}"
    sides = features.images, features.texts
    encode_queries, encode_gallery = sides if direction == "i2t" else sides[::-1]
    clips, labels = reward_clips(models), dataset.gallery(direction)
    gallery, *seen_gallery = encode_gallery([student, *clips.values()], range(len(labels)))
    seen_queries = dict(zip(clips, encode_queries(list(clips.values()), queries), strict=True))
    row = {query: number for number, query in enumerate(queries)}
    rewards = make_rewards(config, models, dict(zip(clips, seen_gallery, strict=True)), labels)
    retriever = Retriever.of(config, models, gallery, rewards, labels)

    def read(indices: Iterable[int]) -> Iterator[tuple[int, Query | Unreadable]]:
        for index, sample in load_samples(config, dataset, student, indices):
            seen = {i: of_model[row[index]] for i, of_model in seen_queries.items()}
            yield index, sample if isinstance(sample, Unreadable) else Query(sample, seen)

    def describe_outcome(index: int, outcome: Outcome) -> tuple[Record, Mapping[str, Tensor]]:
        before, answer, targets = outcome.before, outcome.answer, dataset.targets(direction, index)
        record: Record = {"status": NON_FINITE if outcome.after is None else OK, "targets": targets}
        record |= describe("zero_shot", before, targets) | describe("adapted", answer, targets)
        record |= describe_names(record, outcome.trace, labels)
        record |= ending(outcome.trace, outcome.settled, outcome.gated)
        record["steps"] = [step.as_record() for step in outcome.trace]
        return record, {"zero_shot": before, "adapted": answer} if config.save_logits else {}

    work: Work[Query, Outcome] = Work(
        name=name,
        ids=dataset.query_ids(direction),
        samples=read,
        adapt=retriever.adapt,
        about=lambda index: {} if direction == "i2t" else {"query": dataset.texts[index]},
        describe=describe_outcome,
        kinds=lambda record: kinds(record, dataset.targets(direction, record["index"]), labels, config.steps),
        figure=R1,
        memory=retriever.memory,
        arrays=dict.fromkeys(("zero_shot", "adapted"), len(labels)) if config.save_logits else {},
        contents={"images": digest_of(dataset.ids), "texts": digest_of(dataset.captions), **models.digests},
        images=folder_of(dataset.files[0], dataset.ids[0]),
    )
    records = run_samples(work, config, run)
    return run.shard.from_first(lambda: summarise(records, direction, dataset.image_of))


def load_samples(
    config: RetrievalConfig, dataset: Dataset, student: Backbone, indices: Iterable[int]
) -> Iterator[tuple[int, Any]]:
    """(index, the image's evaluation view or the text) of each query, or `Unreadable`."""
    if config.direction == "t2i":
        return ((index, dataset.texts[index]) for index in indices)
    views = Views(student.centre_view, student.size, count=1)
    published = config.reads_as_published(dataset.published)
    return ImageLoader(dataset.files, indices, views, published=published).one_by_one(
        config.workers, student.device.type == "cuda"
    )


def run_dataset(config: RetrievalConfig, features: FrozenFeatures, models: Models, run: Run) -> None:
    """Adapt to every query of a dataset, in one direction or both, and report."""
    dataset, summaries = features.dataset, []
    method = None if config.method == "zeroshot" else config.method
    clips = [models.student, *reward_clips(models).values()]
    truncated = {clip.name: clip.truncated(dataset.texts) for clip in clips}
    for way in config.one_way:
        name, size = f"{dataset.name}-{way.direction}", len(dataset.query_ids(way.direction))
        # In both directions every query is in the other one's gallery.
        queries = range(size) if config.direction == "both" else sorted(shuffled(size, config.seed, config.limit))
        summary = run_direction(way, features, models, queries, run) | {"truncated_texts": truncated}
        report(run, name, summary, as_line(name, method, summary), models.student.device)
        summaries.append(summary)
    if run.shard.first and len(summaries) == 2:
        whole = both_directions(*summaries)
        run.report(dataset.name, whole)
        print(both_as_line(dataset.name, method, whole), flush=True)


def run(config: RetrievalConfig, datasets: Sequence[Dataset]) -> None:
    """Adapt to every query of the datasets. Raises UserError as `Setup.of_config`, `Run` and `load_models`."""
    setup = Setup.of_config(config)
    with setup.open_run() as run:
        models = setup.load_models()
        for dataset in datasets:
            features = FrozenFeatures(
                run.folder / "features",
                dataset,
                models.student,
                run.shard,
                config.workers,
                config.skip_bad_images,
                config.reads_as_published(dataset.published),
            )
            run_dataset(config, features, models, run)
