"""The numbers of a report: each metric with its 95% interval, classes, and paired tests between runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rlcf.metrics import calibration_error, holm, paired_bootstrap, paired_p_value, share_interval
from rlcf.report.samples import Sample, is_number, scale_of

RIGHT_OR_WRONG = ("top-1", "top-5", "R@1", "R@5", "R@10")
MAIN = {"classification": ("top-1",), "retrieval": ("R@1",), "captioning": ("CIDEr", "reward")}
"""A task -> its main metric, the first that there is."""
LOWER_IS_BETTER = ("ECE",)
BINS = 15
RESAMPLES = 2000
"""Draws of a bootstrap. Where each value is another one a draw takes as long as there are samples."""


@dataclass(frozen=True)
class Value:
    """A number with its 95% interval, None where there is none."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Metric:
    """A metric before and after. unit: "%" or ""; digits: after the point; n: samples that have it.

    of_all: its values are of all captions together, no mean of theirs, and have no interval; its gain is such a mean.
    """

    name: str
    unit: str
    digits: int
    n: int
    before: Value
    after: Value
    gain: Value | None
    note: str = ""
    of_all: bool = False


def main_metric(task: str, samples: Sequence[Sample]) -> str | None:
    """The metric that tells whether a sample was fixed; None for pictures without labels."""
    known = {name for sample in samples if sample.answered for name in sample.values}
    return next((name for name in MAIN[task] if name in known), None)


def metrics_of(task: str, samples: Sequence[Sample], results: dict[str, dict[str, float]]) -> list[Metric]:
    """Every metric of a dataset, the main one first.

    results: the dataset's in results.json, which has the scores of a whole corpus that are no mean of the captions'.
    """
    answered = [sample for sample in samples if sample.answered]
    names = dict.fromkeys(name for sample in answered for name in sample.values)
    main = main_metric(task, samples)
    order = sorted(names, key=lambda name: (name != main, list(names).index(name)))
    found = [_metric(name, answered, results) for name in order]
    if "top-1" in names or "R@1" in names:
        name = "top-1" if "top-1" in names else "R@1"
        sure = [sample for sample in answered if sample.confidence is not None and name in sample.values]
        if sure:
            found.append(_calibration(sure, name))
        rewarded = [s for s in answered if s.reward_gain is not None]
        if rewarded:
            pairs = np.array([s.rewards for s in rewarded], dtype=float)
            note = "of the answers that were sampled" if len(rewarded) < len(answered) else ""
            found.append(_mean("reward", pairs[:, 0], pairs[:, 1], [s.cluster for s in rewarded], note))
    return found


def _metric(name: str, answered: Sequence[Sample], results: dict[str, dict[str, float]]) -> Metric:
    having = [sample for sample in answered if name in sample.values]
    before, after = np.array([sample.values[name] for sample in having]).T
    clusters = [sample.cluster for sample in having]
    if name not in RIGHT_OR_WRONG:
        metric = _mean(name, before, after, clusters)
        corpus = [results.get(when, {}).get(name) for when in ("zero_shot", "adapted")]
        if name.startswith(("BLEU", "METEOR")) and all(map(is_number, corpus)):
            # Of the whole corpus; the captions' own values have the gain.
            first, last = (Value(scale_of(name) * float(value or 0.0)) for value in corpus)
            return replace(metric, before=first, after=last, of_all=True)
        return metric
    ends = [Value(float(side.mean()), *share_of(side, clusters)) for side in (before, after)]
    return Metric(name, "%", digits_of(name), len(having), ends[0], ends[1], gain_of(before, after, clusters))


def share_of(values: np.ndarray, clusters: Sequence[str]) -> tuple[float, float]:
    """The 95% interval of a share, percent. values: 0 or 100. Wilson's for independent samples, else a bootstrap's."""
    if len(set(clusters)) == len(clusters):
        return share_interval(round(float(values.sum()) / 100.0), len(values))
    return paired_bootstrap(np.zeros(len(values)), values, RESAMPLES, groups=numbers_of(clusters))[1:]


def numbers_of(clusters: Sequence[str]) -> list[int]:
    known: dict[str, int] = {}
    return [known.setdefault(cluster, len(known)) for cluster in clusters]


def digits_of(metric: str) -> int:
    """Digits after the point that a metric is shown with."""
    return 1 if metric in RIGHT_OR_WRONG or metric in LOWER_IS_BETTER or scale_of(metric) == 100.0 else 3


def gain_of(before: np.ndarray, after: np.ndarray, clusters: Sequence[str]) -> Value:
    return Value(*paired_bootstrap(before, after, RESAMPLES, groups=numbers_of(clusters)))


def _mean(name: str, before: np.ndarray, after: np.ndarray, clusters: Sequence[str], note: str = "") -> Metric:
    groups, zeros = numbers_of(clusters), np.zeros(len(before))
    first, last = (Value(*paired_bootstrap(zeros, side, RESAMPLES, groups=groups)) for side in (before, after))
    if scale_of(name) == 100.0:
        note = "times 100"
    return Metric(name, "", digits_of(name), len(before), first, last, gain_of(before, after, clusters), note)


def _calibration(having: Sequence[Sample], metric: str, resamples: int = 1000, seed: int = 0) -> Metric:
    """The expected calibration error, percent, with bootstrap intervals from the same draws before and after."""
    clusters = np.array(numbers_of([sample.cluster for sample in having]))
    confidence = np.array([sample.confidence for sample in having], dtype=float)
    right = np.array([sample.values[metric] for sample in having]) / 100.0
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    draws = np.random.default_rng(seed)
    errors = np.empty((resamples, 2))
    count = clusters.max() + 1
    for row in errors:
        often = draws.multinomial(count, np.full(count, 1 / count))[clusters]
        for side in (0, 1):
            gaps = np.bincount(bins[:, side], weights=often * (confidence[:, side] - right[:, side]), minlength=BINS)
            row[side] = 100.0 * np.abs(gaps).sum() / often.sum()
    ends = [calibration_error(confidence[:, side], right[:, side], BINS) for side in (0, 1)]
    whole = [*errors.T, errors[:, 1] - errors[:, 0]]
    values = [
        Value(mean, *np.percentile(drawn, [2.5, 97.5]).tolist())
        for mean, drawn in zip([*ends, ends[1] - ends[0]], whole, strict=True)
    ]
    return Metric("ECE", "%", digits_of("ECE"), len(having), values[0], values[1], values[2], "lower is better")


@dataclass(frozen=True)
class Group:
    """The main metric of a class or domain, before and after."""

    name: str
    n: int
    before: float
    after: float


def groups_of(samples: Sequence[Sample], metric: str) -> list[Group]:
    """The groups by name; empty where there is none or only one."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        if sample.answered and sample.group and metric in sample.values:
            rows.setdefault(sample.group, []).append(sample.values[metric])
    means = {name: np.mean(values, axis=0) for name, values in rows.items()}
    found = [Group(name, len(rows[name]), float(mean[0]), float(mean[1])) for name, mean in sorted(means.items())]
    return found if len(found) > 1 else []


@dataclass(frozen=True)
class Pair:
    """A paired test between two methods on the same samples. difference: second minus first, with its interval; p: of
    the permutation test; adjusted: by Holm's method over the pairs of a table."""

    first: str
    second: str
    matched: int
    difference: Value
    p: float
    adjusted: float = 1.0


def matched(runs: Sequence[Sequence[Sample]], metric: str) -> list[str]:
    """The ids of the samples that every run has answered, in the first one's order."""
    known = [{s.id for s in samples if s.answered and metric in s.values} for samples in runs]
    return [s.id for s in runs[0] if all(s.id in ids for ids in known)]


def compare(
    named: Sequence[tuple[str, Sequence[Sample], int]], metric: str, pairs: Sequence[tuple[int, int]]
) -> list[Pair]:
    """Paired tests between methods. named: (name, samples, 0 for the zero-shot answer and 1 for the adapted one)."""
    found = []
    for first, second in pairs:
        (name, samples, when), (other, others, other_when) = named[first], named[second]
        ids = matched([samples, others], metric)
        if not ids:
            continue
        of_first, of_second = ({s.id: s for s in rows} for rows in (samples, others))
        before = np.array([of_first[i].values[metric][when] for i in ids])
        after = np.array([of_second[i].values[metric][other_when] for i in ids])
        clusters = [of_first[i].cluster for i in ids]
        p = paired_p_value(before, after, groups=numbers_of(clusters))
        found.append(Pair(name, other, len(ids), gain_of(before, after, clusters), p))
    adjusted = holm([pair.p for pair in found])
    return [Pair(p.first, p.second, p.matched, p.difference, p.p, a) for p, a in zip(found, adjusted, strict=True)]
