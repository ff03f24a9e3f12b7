"""The page: one HTML file that holds its style, script, figures, thumbnails and data, and needs no network."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rlcf import __version__
from rlcf.report import figures
from rlcf.report.data import for_script, pictures_of, rows_of, steps_of
from rlcf.report.numbers import RIGHT_OR_WRONG, Value, digits_of
from rlcf.report.parts import TOGETHER, Comparison, Part
from rlcf.report.runs import RunFolder
from rlcf.report.samples import Sample
from rlcf.report.thumbnails import Thumbnails, make_thumbnails
from rlcf.terminal import visible

FIRST_SETTINGS = (
    *("method", "student", "reward", "reward_weights", "tune", "checkpoint", "language_model", "prompt", "context"),
    *("templates", "steps", "lr", "weight_decay", "sample_k", "t2i_sample_k", "views", "selection", "augment"),
    *("candidates", "learn_from_centre", "kl_weight", "gate", "momentum", "images_at_once"),
    *("data", "limit", "seed", "precision", "device"),
)
"""The settings that a reader looks for first, in this order; the others are shown on request."""
OF_STEPS = {"steps", "lr", "weight_decay", "sample_k", "t2i_sample_k", "candidates"}
OFF = ("", "no", "none", "0.0")
KIND_NAMES = {"reward": ("reward rose", "reward fell"), "CIDEr": ("better by CIDEr", "worse by CIDEr")}
"""A captions' metric -> what "fixed" and "spoilt" are called: a caption is not right or wrong."""


def make_page(
    parts: Sequence[Part], comparisons: Sequence[Comparison], most: int, images: Path | None
) -> tuple[str, Thumbnails]:
    """The page's HTML, and the thumbnails in it.

    most: thumbnails that it may hold; images: where the images are now, None for where they were.
    """
    runs = list({part.run.name: part.run for part in parts}.values())
    thumbnails = make_thumbnails(list(image_files(parts, images)), most)
    numbers = {file: number for number, file in enumerate(thumbnails.made)}
    loader = PackageLoader("rlcf.report", "page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "value": value_text,
        "number": number_text,
        "p": p_text,
        "visible": visible,
        "broken": broken,
    }
    script = _file("page.js")
    html = environment.get_template("page.html").render(
        title=f"{runs[0].task}: {', '.join(visible(run.name) for run in runs)}",
        task=runs[0].task,
        runs=runs,
        version=__version__,
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        settings=settings_of(runs),
        parts=[_part_of_page(number, part) for number, part in enumerate(parts)],
        comparisons=[_comparison_of_page(number, own) for number, own in enumerate(comparisons)],
        together=TOGETHER,
        data=[Markup(for_script(_rows(part, numbers, images))) for part in parts],
        steps=[list(steps_of(part.samples)) for part in parts],
        pictures=list(pictures_of(thumbnails.made)),
    )
    return html, thumbnails


def image_files(parts: Sequence[Part], moved: Path | None) -> Iterator[Path]:
    """The images of all samples, and where answers are images these too; first of the samples that changed."""
    for changed in (True, False):
        for part in parts:
            for sample in part.samples:
                if (sample.kind(part.metric) in ("fixed", "spoilt", "changed")) == changed:
                    yield from _images_of(part, sample, moved).values()


def _images_of(part: Part, sample: Sample, moved: Path | None) -> dict[str, Path]:
    root = moved or part.dataset.images
    if root is None:
        return {}
    names = (sample.image, sample.truth_image, sample.before_image, sample.after_image)
    return {name: root / name for name in names if name}


def _rows(part: Part, numbers: dict[Path, int], moved: Path | None) -> dict[str, Any]:
    files = {name: file for s in part.samples for name, file in _images_of(part, s, moved).items()}
    pictures = {name: numbers[file] for name, file in files.items() if file in numbers}
    return rows_of(part.samples, part.metric, pictures) | {"kinds": kind_names(part), "task": part.run.task}


def kind_names(part: Part) -> dict[str, str]:
    """What became of samples -> what the page calls it."""
    rose, fell = KIND_NAMES.get(part.metric or "", ("fixed", "spoilt"))
    named = {"fixed": rose, "spoilt": fell, "changed": "changed"}
    if part.metric is None:
        del named["fixed"], named["spoilt"]
    else:
        del named["changed"]
    return named | {kind: kind for kind in ("unchanged", "not finite", "unreadable")}


def settings_of(runs: Sequence[RunFolder]) -> dict[str, list[tuple[str, Any]]]:
    """ "apart" -> (setting, its value in each run) where runs differ; "first" and "further" -> (setting, their value).

    First are those that a reader looks for, unless they are off, or of steps that no run took.
    """
    known = [key for key in dict.fromkeys(key for run in runs for key in run.config) if key != "output"]
    idle = {run.name: OF_STEPS if not _took_steps(run) else set() for run in runs}
    rows = {key: ["" if key in idle[run.name] else _setting(run.config.get(key)) for run in runs] for key in known}
    apart = [key for key in rows if len(set(rows[key])) > 1]
    apart.sort(key=lambda key: FIRST_SETTINGS.index(key) if key in FIRST_SETTINGS else len(FIRST_SETTINGS))
    alike = {key: rows[key][0] for key in rows if key not in apart}
    first = [key for key in FIRST_SETTINGS if alike.get(key, "") not in OFF]
    return {
        "apart": [(key, rows[key]) for key in apart],
        "first": [(key, alike[key]) for key in first],
        "further": [(key, alike[key]) for key in alike if key not in first],
    }


def _took_steps(run: RunFolder) -> bool:
    return any(record.get("steps") for dataset in run.datasets for record in dataset.records)


def _setting(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return visible(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _part_of_page(number: int, part: Part) -> dict[str, Any]:
    """What the template shows of a part."""
    drawn = list(_figures(number, part))
    notes = []
    if part.metric is None:
        notes.append("These pictures have no labels: the page tells what changed, not what was right.")
    if not part.dataset.finished:
        notes.append(f"This dataset is not finished: {len(part.samples):,} samples so far.")
    if part.run.task == "captioning":
        notes.append("A caption has no probability: there is no reliability diagram.")
    return {
        "number": number,
        "run": visible(part.run.name),
        "dataset": visible(part.dataset.name),
        "n": sum(sample.answered for sample in part.samples),
        "kinds": {name: part.kinds.get(kind, 0) for kind, name in kind_names(part).items()},
        "gated": sum(sample.gated for sample in part.samples),
        "seconds": sum(part.seconds) / len(part.seconds) if part.seconds else None,
        "main": next((metric for metric in part.metrics if metric.name == part.metric), None),
        "metrics": part.metrics,
        "figures": drawn,
        "groups": sorted(part.groups, key=lambda group: (group.before - group.after, group.name)),
        "group_metric": part.metric,
        "notes": notes,
    }


def _figures(number: int, part: Part) -> Iterator[dict[str, Any]]:
    """Each figure: its SVG, title, and what to read from it."""
    having = [s for s in part.samples if s.answered and s.confidence is not None and s.values]
    error = next((metric for metric in part.metrics if metric.name == "ECE"), None)
    if error is not None and part.metric:
        for when, called in enumerate(("zero-shot", "adapted")):
            title = f"Reliability, {called}"
            svg = figures.draw(figures.reliability(having, part.metric, when), f"p{number}r{when}", title)
            told = (
                f"ECE {(error.before, error.after)[when].mean:.1f}%. Bars: the share of right answers by confidence; "
                "hatched: how far from the diagonal."
            )
            if any(len(sample.truth) > 1 for sample in having):
                told += (
                    " Several answers are right and share the probability, so that it is low where the answer is right."
                )
            yield {"svg": Markup(svg), "title": title, "told": told}
    rewarded = figures.reward_of_right_and_wrong(part.samples)
    if rewarded is not None:
        paint, wins = rewarded
        title = "Reward of the sampled answers"
        told = (
            f"Of a right and a wrong answer to one image, the right one has the higher reward in {wins:.1f}% of the "
            "cases (50% by chance)."
            if wins is not None
            else ""
        )
        yield {"svg": Markup(figures.draw(paint, f"p{number}w", title)), "title": title, "told": told}
    elif part.run.task == "captioning":
        scored = part.metric if part.metric not in (None, "reward") else None
        against = figures.reward_against(part.samples, scored) if scored else None
        if against is not None:
            paint, correlation = against
            title = f"Reward against {scored}"
            told = f"Rank correlation {correlation:+.2f} (Spearman) over the zero-shot and adapted captions."
            yield {"svg": Markup(figures.draw(paint, f"p{number}w", title)), "title": title, "told": told}
    if part.seconds:
        title = "Seconds a sample"
        total = sum(part.seconds)
        told = f"Mean {total / len(part.seconds):.3g} s, {total:,.0f} s in all."
        yield {
            "svg": Markup(figures.draw(figures.seconds(part.samples), f"p{number}s", title)),
            "title": title,
            "told": told,
        }


def _comparison_of_page(number: int, own: Comparison) -> dict[str, Any]:
    points = [(m.name, m.seconds, m.value) for m in own.methods if m.seconds]
    unit = "%" if own.metric in RIGHT_OR_WRONG else ""
    metric = f"{own.metric}, %" if unit else own.metric
    title = f"{own.metric} against seconds a sample"
    svg = figures.draw(figures.cost(points, own.zero_shot, metric), f"c{number}", title, (5.4, 3.4)) if points else ""
    return {"of": own, "svg": Markup(svg), "digits": digits_of(own.metric), "unit": unit, "title": title}


def value_text(value: Value, digits: int, signed: bool = False) -> Markup:
    """A number and its interval. signed: "+" before what is above 0.

    >>> print(value_text(Value(12.5, -8.0, 17.25), 1, signed=True))
    +12.5 <span class="interval">-8.0 to +17.2</span>
    """
    mean, low, high = (number_text(n, digits, signed) for n in (value.mean, value.low, value.high))
    return Markup(f'{mean} <span class="interval">{low} to {high}</span>' if low and high else mean)


def number_text(number: float | None, digits: int, signed: bool = False) -> str:
    """A number as the page shows it; "" for None.

    >>> number_text(-0.0001, 2, signed=True)
    '+0.00'
    """
    # Adding 0.0 makes a plain zero of a negative one.
    return "" if number is None else f"{round(number, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def broken(text: object) -> Markup:
    """A text that may go on in the next line behind each slash, as a path does.

    >>> print(broken("photos/<1>"))
    photos/<wbr>&lt;1&gt;
    """
    return escape(text).replace("/", Markup("/<wbr>"))


def p_text(p: float) -> str:
    """
    >>> p_text(0.00004), p_text(0.034)
    ('< 0.001', '0.034')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _file(name: str) -> str:
    return (resources.files("rlcf.report") / "page" / name).read_text(encoding="utf-8")
