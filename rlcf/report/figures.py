"""The page's figures, as SVG whose colours are the page's, so that they follow its light and dark."""

import io
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Bbox, BboxBase

from rlcf.report.numbers import BINS, Value
from rlcf.report.samples import Sample
from rlcf.terminal import visible

COLOURS = {
    "ink": "#000001",
    "muted": "#000002",
    "line": "#000003",
    "before": "#000004",
    "after": "#000005",
    "right": "#000006",
    "wrong": "#000007",
}
"""The page's colours -> what stands for them while matplotlib draws."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "sans-serif",
    "text.parse_math": False,
    "text.color": COLOURS["ink"],
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "savefig.transparent": True,
}
SIZE = (4.2, 3.0)
"""Width and height of a figure, inches: it is read as it is on a phone."""


def draw(paint: Callable[[Axes], None], key: str, title: str, size: tuple[float, float] = SIZE) -> str:
    """A figure as an SVG element. paint: draws into the axes; key: other figures of the page have other ones, for the
    names inside are the page's; title: what it shows, for those who hear the page."""
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # glyphs of a name that no font here has
    style: Any = {**STYLE, "svg.hashsalt": key}  # matplotlib's own type has a literal for each key
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _for_page(stream.getvalue(), key, title)


def _for_page(svg: str, key: str, title: str) -> str:
    """The <svg> element of matplotlib's file, with the page's colours and font, and with names of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        rf'<svg class="figure" role="img" aria-label="{title}" viewBox="\1">',
        body,
        count=1,
    )
    for name, colour in COLOURS.items():
        body = body.replace(colour, f"var(--{name})")
    body = re.sub(r"font: (\S+) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r'id="([^"]+)"', rf'id="{key}-\1"', body)
    body = re.sub(r'(href="#|url\(#)', rf"\1{key}-", body)
    return body.replace("xlink:href", "href")


def reliability(samples: Sequence[Sample], metric: str, when: int) -> Callable[[Axes], None]:
    """Share of right answers against their confidence. when: 0 zero-shot, 1 adapted."""
    having = [s for s in samples if s.answered and s.confidence is not None and metric in s.values]
    confidence = np.array([s.confidence[when] for s in having if s.confidence is not None])
    right = np.array([s.values[metric][when] for s in having]) / 100.0
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = counts > 0
    accuracy = np.bincount(bins, weights=right, minlength=BINS)[filled] / counts[filled]
    mean = np.bincount(bins, weights=confidence, minlength=BINS)[filled] / counts[filled]
    places = (np.arange(BINS)[filled] + 0.5) / BINS

    def paint(axes: Axes) -> None:
        colour = COLOURS[("before", "after")[when]]
        axes.bar(places, accuracy, 0.9 / BINS, color=colour, linewidth=0)
        below, high = np.minimum(accuracy, mean), np.abs(accuracy - mean)
        axes.bar(places, high, 0.9 / BINS, below, color="none", edgecolor=COLOURS["wrong"], hatch="///", linewidth=0.8)
        axes.plot([0, 1], [0, 1], color=COLOURS["muted"], linestyle=(0, (4, 3)), linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")

    return paint


def reward_of_right_and_wrong(samples: Sequence[Sample]) -> tuple[Callable[[Axes], None], float | None] | None:
    """The rewards of the sampled answers that were right, and of the others.

    With them: how often, in percent, a right answer of a view has a higher reward than a wrong one of that view, ties
    counted as half; None where no view has both. None in all where no answer's rightness is known.
    """
    groups: dict[bool, list[float]] = {True: [], False: []}
    wins, pairs = 0.0, 0
    for sample in samples:
        seen: dict[int, dict[str, tuple[bool, float]]] = {}
        for step in sample.steps:
            for row, (_, answers) in enumerate(step.views):
                for a in answers:
                    if a.right is not None and a.reward is not None:
                        seen.setdefault(row, {})[a.name] = (a.right, a.reward)
        for found in seen.values():
            right = [reward for is_right, reward in found.values() if is_right]
            wrong = [reward for is_right, reward in found.values() if not is_right]
            groups[True] += right
            groups[False] += wrong
            wins += sum((good > bad) + 0.5 * (good == bad) for good in right for bad in wrong)
            pairs += len(right) * len(wrong)
    if not groups[True] and not groups[False]:
        return None
    every = groups[True] + groups[False]
    bins = min(30, max(8, len(every) // 8))
    edges = np.linspace(min(every), max(every) + 1e-6, bins + 1)

    def paint(axes: Axes) -> None:
        for is_right, name, hatch in ((True, "right", ""), (False, "wrong", "////")):  # hatched, both can be seen
            values = np.array(groups[is_right])
            if len(values):
                share = np.full(len(values), 100.0 / len(values))
                face = COLOURS[name] if is_right else "none"
                drawn: dict[str, Any] = {
                    "facecolor": face,
                    "edgecolor": COLOURS[name],
                    "hatch": hatch,
                    "linewidth": 0.8,
                }
                axes.hist(values, edges.tolist(), weights=share, label=f"{name} answers ({len(values):,})", **drawn)
        axes.set(xlabel="reward", ylabel="share of the answers, %")
        _legend_above(axes)

    return paint, 100.0 * wins / pairs if pairs else None


def _legend_above(axes: Axes) -> None:
    """A legend over the axes, where it covers nothing that is drawn."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, fontsize=9, borderaxespad=0.2)


def reward_against(samples: Sequence[Sample], metric: str) -> tuple[Callable[[Axes], None], float] | None:
    """Captions' rewards against another score of theirs, with Spearman's rank correlation of the two.

    Both answers count. None for less than three captions that have both.
    """
    having = [s for s in samples if metric in s.values and None not in s.rewards]
    if len(having) < 3:
        return None
    rewards = np.array([s.rewards for s in having], dtype=float)
    scores = np.array([s.values[metric] for s in having])
    ranks = [_ranks(values.ravel()) for values in (rewards, scores)]
    flat = ranks[0].std() == 0 or ranks[1].std() == 0
    correlation = 0.0 if flat else float(np.corrcoef(np.stack(ranks))[0, 1])

    def paint(axes: Axes) -> None:
        for when, (name, marker) in enumerate((("zero-shot", "o"), ("adapted", "^"))):
            colour = COLOURS[("before", "after")[when]]
            few = np.random.default_rng(0).permutation(len(having))[:1500]
            axes.scatter(
                rewards[few, when],
                scores[few, when],
                s=24,
                c=colour,
                marker=marker,
                alpha=0.7,
                linewidths=0,
                label=name,
            )
        axes.set(xlabel="reward", ylabel=metric)
        _legend_above(axes)

    return paint, correlation


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[places]


def seconds(samples: Sequence[Sample]) -> Callable[[Axes], None]:
    """How long the samples took. Some that took far longer, such as the first, are counted in the last bar."""
    values = np.array([s.seconds for s in samples if s.seconds is not None])
    most = float(np.percentile(values, 99)) if len(values) > 20 else float(values.max())
    few = min(30, max(5, len(values) // 4))

    def paint(axes: Axes) -> None:
        axes.hist(np.minimum(values, most), few, color=COLOURS["after"], linewidth=0)
        axes.axvline(float(np.median(values)), color=COLOURS["ink"], linestyle=(0, (4, 3)), linewidth=1)
        axes.set(xlabel="seconds a sample (dashed: the median)", ylabel="samples")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(left=0)

    return paint


def cost(points: Sequence[tuple[str, float, Value]], zero_shot: Value | None, metric: str) -> Callable[[Axes], None]:
    """Methods by what they take and what they reach. points: (name, seconds a sample, metric)."""

    def paint(axes: Axes) -> None:
        if zero_shot is not None:
            axes.axhline(zero_shot.mean, color=COLOURS["before"], linestyle=(0, (4, 3)), linewidth=1)
            place: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "textcoords": "offset points",
                "ha": "right",
            }
            axes.annotate("zero-shot", (1, zero_shot.mean), (-2, 3), color=COLOURS["muted"], fontsize=9, **place)
        for _, took, value in points:
            low, high = (value.mean if end is None else end for end in (value.low, value.high))
            # An interval's end is its mean where all samples agree, but for rounding; a length is never below 0.
            ends = [[max(0.0, value.mean - low)], [max(0.0, high - value.mean)]]
            axes.errorbar(
                [took], [value.mean], ends, fmt="o", color=COLOURS["after"], ecolor=COLOURS["before"], markersize=6
            )
        axes.set_xscale("log")
        axes.set(xlabel="seconds a sample", ylabel=metric)
        axes.margins(x=0.22, y=0.12)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        _name_points(axes, [(_cut(visible(name)), took, value.mean) for name, took, value in points])

    return paint


BESIDE = [(x, y) for y in (4, -4, 14, -14, 24, -24) for x in (7, -7)]
"""Offsets of a name from its point, in points to the right and upwards, the preferred one first."""


def _name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Write each point's name beside it, where it covers no other name and no point if there is such a place.

    points: (name, x, y), in the axes' units.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # the layout, by which places are known
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    reach = 4.0 * figure.dpi / 72.0  # pixels of a point and a little around it
    taken: list[BboxBase] = [
        Bbox([[x - reach, y - reach], [x + reach, y + reach]])
        for x, y in axes.transData.transform([(x, y) for _, x, y in points])
    ]
    for name, x, y in points:
        tried: list[tuple[int, int, Annotation, BboxBase]] = []
        for right, above in BESIDE:
            at: dict[str, Any] = {"ha": "left" if right > 0 else "right", "va": "bottom" if above > 0 else "top"}
            label = axes.annotate(name, (x, y), (right, above), textcoords="offset points", fontsize=9, **at)
            label.set_in_layout(False)  # a long name must not squeeze the axes
            box = label.get_window_extent()
            outside = box.x0 < axes.bbox.x0 or box.x1 > figure.bbox.x1
            tried.append((box.count_overlaps(taken) + outside, len(tried), label, box))
            if not tried[-1][0]:
                break
        _, _, kept, place = min(tried, key=lambda found: found[:2])
        for *_, label, _ in tried:
            if label is not kept:
                label.remove()
        taken.append(place)


def _cut(name: str, most: int = 28) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
