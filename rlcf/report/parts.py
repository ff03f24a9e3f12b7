"""The parts of a report: a run's samples of one dataset, and all runs' of one dataset beside each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from rlcf.report.numbers import (
    MAIN,
    RIGHT_OR_WRONG,
    Group,
    Metric,
    Pair,
    Value,
    compare,
    gain_of,
    groups_of,
    main_metric,
    matched,
    metrics_of,
    share_of,
)
from rlcf.report.runs import DatasetRecords, RunFolder
from rlcf.report.samples import Sample, read_samples


@dataclass(frozen=True)
class Part:
    """A run's samples of one dataset."""

    run: RunFolder
    dataset: DatasetRecords
    samples: list[Sample]

    @cached_property
    def metric(self) -> str | None:
        """The main metric; None for pictures without labels."""
        return main_metric(self.run.task, self.samples)

    @cached_property
    def metrics(self) -> list[Metric]:
        datasets = self.run.results.get("datasets")
        results = datasets.get(self.dataset.name) if isinstance(datasets, dict) else None
        told = results.items() if isinstance(results, dict) else ()
        return metrics_of(self.run.task, self.samples, {when: held for when, held in told if isinstance(held, dict)})

    @cached_property
    def groups(self) -> list[Group]:
        return groups_of(self.samples, self.metric) if self.metric else []

    @cached_property
    def kinds(self) -> dict[str, int]:
        """What became of the samples -> how many."""
        found = [sample.kind(self.metric) for sample in self.samples]
        return {kind: found.count(kind) for kind in dict.fromkeys(found)}

    @cached_property
    def seconds(self) -> list[float]:
        return [sample.seconds for sample in self.samples if sample.seconds is not None]


def parts_of(runs: Sequence[RunFolder]) -> list[Part]:
    """Every run's parts. Raises UserError for records that cannot be read."""
    return [Part(run, dataset, read_samples(run, dataset)) for run in runs for dataset in run.datasets]


@dataclass(frozen=True)
class Method:
    """A row of a comparison. value: of the main metric on the samples that all runs have; gain: over the run's own
    zero-shot answers, and p, None for these themselves; seconds: a sample, None for zero-shot answers, which every run
    makes on its way."""

    name: str
    value: Value
    gain: Value | None = None
    p: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Runs on the samples of one dataset, or of all. matched: number of samples that every run has; sizes: run ->
    number that it has."""

    name: str
    metric: str
    matched: int
    sizes: dict[str, int]
    methods: list[Method]
    pairs: list[Pair]

    @property
    def zero_shot(self) -> Value | None:
        """The value of the zero-shot answers where all runs share them."""
        shared = [method for method in self.methods if method.seconds is None]
        return shared[0].value if len(shared) == 1 else None


TOGETHER = "all datasets together"


def comparisons_of(parts: Sequence[Part]) -> list[Comparison]:
    """The runs compared on each dataset that more than one has, first on all those that every run has together."""
    runs = list(dict.fromkeys(part.run.name for part in parts))
    by_dataset: dict[str, list[Part]] = {}
    for part in parts:
        by_dataset.setdefault(part.dataset.name, []).append(part)
    shared = {name: own for name, own in by_dataset.items() if len(own) > 1}
    task = parts[0].run.task
    found = [_compare(name, [(part.run.name, part.samples) for part in own], task) for name, own in shared.items()]
    for end in reversed(("-i2t", "-t2i") if task == "retrieval" else ("",)):  # two directions are two tasks
        whole = [name for name, own in shared.items() if len(own) == len(runs) and name.endswith(end)]
        if len(whole) > 1:
            together = [(run, [s for name in whole for s in _of_run(shared[name], run)]) for run in runs]
            found.insert(0, _compare(TOGETHER + end.replace("-", ", "), together, task))
    return [comparison for comparison in found if comparison is not None]


def _of_run(parts: Sequence[Part], run: str) -> Iterator[Sample]:
    """A run's samples, with the dataset's name in what tells one from another."""
    for part in parts:
        if part.run.name == run:
            for sample in part.samples:
                own = part.dataset.name
                yield replace(sample, id=f"{own}/{sample.id}", cluster=f"{own}/{sample.cluster}")


def _compare(name: str, runs: Sequence[tuple[str, Sequence[Sample]]], task: str) -> Comparison | None:
    """None where the runs have no metric in common."""
    known = [{metric for s in samples if s.answered for metric in s.values} for _, samples in runs]
    metric = next((m for m in MAIN[task] if all(m in values for values in known)), None)
    if metric is None:
        return None
    sizes = {run: sum(s.answered for s in samples) for run, samples in runs}
    ids = matched([samples for _, samples in runs], metric)
    if not ids:
        return Comparison(name, metric, 0, sizes, [], [])
    rows = [[found[i] for i in ids] for found in ({s.id: s for s in samples} for _, samples in runs)]
    clusters = [sample.cluster for sample in rows[0]]
    values = np.array([[s.values[metric] for s in row] for row in rows])  # (runs, samples, before and after)
    same = bool((values[:, :, 0] == values[0, :, 0]).all())
    methods = [
        Method("zero-shot" if same else f"zero-shot of {run}", value_of(metric, values[i, :, 0], clusters))
        for i, (run, _) in enumerate(runs[:1] if same else runs)
    ]
    own = compare(
        [(r, s, when) for r, s in runs for when in (0, 1)], metric, [(2 * i, 2 * i + 1) for i in range(len(runs))]
    )
    for i, (run, _) in enumerate(runs):
        before, after = values[i].T
        took = [s.seconds for s in rows[i] if s.seconds is not None]
        gain = gain_of(before, after, clusters)
        methods.append(Method(run, value_of(metric, after, clusters), gain, own[i].adjusted, sum(took) / len(took)))
    pairs = [(i, j) for j in range(len(runs)) for i in range(j)]
    tests = compare([(run, samples, 1) for run, samples in runs], metric, pairs)
    return Comparison(name, metric, len(ids), sizes, methods, tests)


def value_of(metric: str, values: np.ndarray, clusters: Sequence[str]) -> Value:
    """A metric's mean with its 95% interval."""
    if metric in RIGHT_OR_WRONG:
        return Value(float(values.mean()), *share_of(values, clusters))
    zeros = np.zeros(len(values))
    return gain_of(zeros, values, clusters)
