"""Tables for papers: CSV with a line a number, Markdown and LaTeX with a row a method and a column a dataset."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlcf.report.numbers import Metric, Value
from rlcf.report.parts import Part
from rlcf.report.published import Published, published_of
from rlcf.report.samples import scale_of
from rlcf.terminal import visible

COLUMNS = {
    "classification": ("top-1",),
    "retrieval": ("R@1", "R@5", "R@10"),
    "captioning": ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE", "CLIPScore", "RefCLIPScore", "reward"),
}
"""A task -> the metrics that a paper's table has, where a run has them."""
FIELDS = (
    *("source", "run", "method", "dataset", "metric", "unit", "n", "zero_shot", "zero_shot_low", "zero_shot_high"),
    *("adapted", "adapted_low", "adapted_high", "gain", "gain_low", "gain_high", "seconds_per_sample"),
)
THIS = "this run"


@dataclass(frozen=True)
class Row:
    """A row of a table. cells: one a column, None for a missing one; source: the paper that reports them, "" for us."""

    name: str
    cells: list[Value | None]
    source: str = ""


@dataclass(frozen=True)
class Table:
    """columns: (dataset, metric, unit, digits); note: what stands below."""

    columns: list[tuple[str, str, str, int]]
    rows: list[Row]
    note: str


def as_csv(parts: Sequence[Part]) -> str:
    """A line a run, dataset and metric, with 95% intervals; then the papers' figures, named as theirs in "source"."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for part in parts:
        method, took = _cell(str(part.run.config.get("method"))), part.seconds
        shared = {"source": THIS, "run": _cell(part.run.name), "method": method, "dataset": _cell(part.dataset.name)}
        shared |= {"seconds_per_sample": f"{sum(took) / len(took):.6g}"} if took else {}
        for m in part.metrics:
            numbers: dict[str, str] = {}
            for name, value in (("zero_shot", m.before), ("adapted", m.after), ("gain", m.gain)):
                if value is not None:
                    ends = {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
                    numbers |= {key: f"{number:.6g}" for key, number in ends.items() if number is not None}
            writer.writerow(
                shared
                | {"metric": m.name, "unit": m.unit or ("times 100" if scale_of(m.name) == 100.0 else ""), "n": m.n}
                | numbers
            )
    datasets = dict.fromkeys(part.dataset.name for part in parts)
    for run, paper in _published(parts):
        for dataset in datasets:
            if dataset in paper.values:
                row = {"source": paper.source, "run": _cell(run), "method": f"{paper.name} (paper)", "dataset": dataset}
                writer.writerow(row | {"metric": paper.metric, "unit": "%", "adapted": f"{paper.values[dataset]:g}"})
    return stream.getvalue()


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = visible(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _published(parts: Sequence[Part]) -> list[tuple[str, Published]]:
    runs = {part.run.name: part.run for part in parts}
    return [(name, paper) for name, run in runs.items() for paper in published_of(run.task, run.config)]


def table_of(parts: Sequence[Part]) -> Table:
    """The zero-shot answers, once where all runs share them, then each run, with the papers' figures below it."""
    datasets = list(dict.fromkeys(part.dataset.name for part in parts))
    found = {(p.run.name, p.dataset.name, m.name): m for p in parts for m in p.metrics}
    metrics = {(d, m.name): m for d in datasets for p in parts if p.dataset.name == d for m in p.metrics}
    wanted = COLUMNS[parts[0].run.task]
    known = [(d, n) for d in datasets for n in wanted if (d, n) in metrics]
    # Papers tell top-1 and recall with two digits.
    columns = [(d, n, metrics[d, n].unit, 2 if metrics[d, n].unit else metrics[d, n].digits) for d, n in known]
    runs = {part.run.name: part.run for part in parts}

    def cells(run: str, of: Callable[[Metric], Value]) -> list[Value | None]:
        return [of(found[run, d, n]) if (run, d, n) in found else None for d, n, _, _ in columns]

    firsts = {run: cells(run, lambda m: m.before) for run in runs}
    shared = all(first == firsts[next(iter(runs))] for first in firsts.values())
    rows = [Row("zero-shot", firsts[next(iter(runs))])] if shared else []
    for name, run in runs.items():
        if not shared:
            rows.append(Row(f"zero-shot of {name}", firsts[name]))
        rows.append(Row(name, cells(name, lambda m: m.after)))
        for paper in published_of(run.task, run.config):
            values = [
                Value(paper.values[d]) if n == paper.metric and d in paper.values else None for d, n, _, _ in columns
            ]
            if any(value is not None for value in values):
                rows.append(Row(f"{paper.name} (paper)", values, paper.source))
    sources = dict.fromkeys(row.source for row in rows if row.source)
    hundred = dict.fromkeys(name for _, name, _, _ in columns if scale_of(name) == 100.0)
    note = "In brackets: 95% intervals." + (f" {', '.join(hundred)}: times 100." if hundred else "")
    note += "".join(f" (paper): as reported by {source}; not measured here." for source in sources)
    return Table(columns, rows, note)


def as_markdown(parts: Sequence[Part]) -> str:
    table = table_of(parts)
    header = ["method", *(_head(d, n, unit) for d, n, unit, _ in table.columns)]
    lines = [[row.name, *_numbers(table, row, "{mean} ({low} to {high})")] for row in table.rows]
    cells = [[_for_markdown(cell) for cell in line] for line in [header, *lines]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    texts = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:], "", table.note]) + "\n"


def as_latex(parts: Sequence[Part]) -> str:
    r"""A tabular with booktabs' rules, which needs \usepackage{booktabs}."""
    table = table_of(parts)
    header = ["method", *(_head(d, n, unit) for d, n, unit, _ in table.columns)]
    lines = [rf"% {table.note}", rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}", r"\toprule"]
    lines += [" & ".join(map(_for_latex, header)) + r" \\", r"\midrule"]
    for row in table.rows:
        numbers = _numbers(table, row, r"{mean} {{\scriptsize ({low}, {high})}}")
        lines.append(" & ".join([_for_latex(row.name), *numbers]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _head(dataset: str, metric: str, unit: str) -> str:
    return f"{dataset}, {metric}" + (f", {unit}" if unit else "")


def _numbers(table: Table, row: Row, form: str) -> list[str]:
    """The cells of a row. form: of one with an interval."""
    found = []
    for value, (_, _, _, digits) in zip(row.cells, table.columns, strict=True):
        if value is None:
            found.append("")
            continue
        numbers = {"mean": value.mean, "low": value.low, "high": value.high}
        texts = {name: f"{number:.{digits}f}" for name, number in numbers.items() if number is not None}
        found.append(form.format(**texts) if len(texts) == 3 else texts["mean"])
    return found


def _for_markdown(text: str) -> str:
    return re.sub(r"([\\|*_`<\[])", r"\\\1", visible(text))


def _for_latex(text: str) -> str:
    named = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}]", lambda found: named.get(found[0], "\\" + found[0]), visible(text))
