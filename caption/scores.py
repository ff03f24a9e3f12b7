"""The scores of a captioning run, of each dataset and domain, as a table.

    python -m caption.scores output/eval-c2n-clipcap

Papers print the metrics against references times 100.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from caption.evaluate import CANDIDATES, SCORES
from rlcf.errors import UserError, run_main
from rlcf.run.parser import Parser


def read_scores(run: Path) -> dict[str, dict[str, Any]]:
    """Dataset, or dataset/domain, and " zero-shot" -> what scores.json holds.

    The captions before adaptation have a row of their own where they are others. Raises UserError for a folder without
    scores and for a file that is damaged.
    """
    found = {}
    for file in sorted(run.glob(f"**/{SCORES['adapted']}"), key=lambda file: file.parent):
        name = file.parent.relative_to(run).as_posix()
        before, after = (_read(file.with_name(SCORES[which])) for which in ("zero_shot", "adapted"))
        texts = [file.with_name(CANDIDATES[which]) for which in ("zero_shot", "adapted")]
        if texts[0].read_bytes() != texts[1].read_bytes():
            found[f"{name} zero-shot"] = before
        found[name] = after
    if not found:
        raise UserError(f"{run} holds no scores; captions are scored by caption/main.py --evaluate")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return {"n": int(held["n"]), **{str(name): float(value) for name, value in held["scores"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} holds no scores; delete the run's folder of it and start the command again") from error


def as_table(scores: dict[str, dict[str, Any]]) -> str:
    """The scores as they are printed: a row a dataset or domain, a column a metric."""
    metrics = list(dict.fromkeys(name for row in scores.values() for name in row))
    lines = [["", *metrics]]
    for name, row in scores.items():
        cells = ["" if row.get(m) is None else str(row[m]) if m == "n" else f"{row[m]:.4f}" for m in metrics]
        lines.append([name, *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def main(argv: list[str] | None = None) -> None:
    parser: argparse.ArgumentParser = Parser(description=__doc__)
    parser.add_argument("run", metavar="RUN", help="run folder of caption/main.py --evaluate")
    print(as_table(read_scores(Path(parser.parse_args(argv).run).expanduser())))


if __name__ == "__main__":
    run_main(main)
    sys.exit()
