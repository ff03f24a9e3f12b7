"""What the page's script reads: a row a sample, their steps in compressed chunks, and the thumbnails."""

import base64
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcf.report.samples import Sample, Sampled, Step

CHUNK = 250
"""Samples, or thumbnails, that the script unpacks together."""


class Names:
    """Texts, each once. `names(text)` is a text's place in `names.texts`."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))

    @property
    def texts(self) -> list[str]:
        return list(self.places)


def rows_of(samples: Sequence[Sample], metric: str | None, pictures: Mapping[str, int]) -> dict[str, Any]:
    """A row a sample: what the gallery shows, filters, searches and sorts by.

    metric: the main one; pictures: image of a sample -> number of its thumbnail.
    """
    names, rows = Names(), []
    for sample in samples:
        right = None
        pair = sample.values.get(metric or "")
        if pair is not None and sample.answered and set(pair) <= {0.0, 100.0}:
            right = [int(value == 100.0) for value in pair]
        rows.append(
            {
                "id": sample.id,
                "kind": sample.kind(metric),
                "truth": [names(text) for text in sample.truth],
                "group": names(sample.group),
                "query": names(sample.query),
                "answers": [names(sample.before), names(sample.after)],
                "right": right,
                "confidence": _rounded(sample.confidence or ()),
                "rewards": _rounded(sample.rewards),
                "gain": _short(sample.reward_gain),
                "seconds": _short(sample.seconds),
                "gated": int(sample.gated),
                "pictures": [
                    pictures.get(image, -1)
                    for image in (sample.truth_image or sample.image, sample.before_image, sample.after_image)
                ],
                "reason": sample.reason,
                "values": {name: _rounded(pair) for name, pair in sample.values.items() if name != "reward"}
                if right is None
                else {},
            }
        )
    keys = list(rows[0]) if rows else []
    return {"names": names.texts, "keys": keys, "rows": [[row[key] for key in keys] for row in rows], "chunk": CHUNK}


def steps_of(samples: Sequence[Sample]) -> Iterator[str]:
    """The steps of every `CHUNK` samples, as base64 of gzipped JSON."""
    for start in range(0, len(samples), CHUNK):
        names = Names()
        steps = [[_step(step, names) for step in sample.steps] for sample in samples[start : start + CHUNK]]
        text = json.dumps({"names": names.texts, "steps": steps}, separators=(",", ":"))
        yield base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def pictures_of(made: Mapping[Path, str]) -> Iterator[str]:
    """The thumbnails of every `CHUNK` images, a line each."""
    texts = list(made.values())
    for start in range(0, len(texts), CHUNK):
        yield "\n".join(texts[start : start + CHUNK])


def for_script(value: Any) -> str:
    """A value as JSON that no text in it can end the <script> element of."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _step(step: Step, names: Names) -> list[Any]:
    views = [[view, [_sampled(answer, names) for answer in answers]] for view, answers in step.views]
    return [_short(step.loss), views]


def _sampled(answer: Sampled, names: Names) -> list[int | float | None]:
    right = None if answer.right is None else int(answer.right)
    return [names(answer.name), _short(answer.reward), _short(answer.advantage), right]


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [_short(value) for value in values]


def _short(value: float | None) -> float | None:
    """Five significant digits: what is shown has fewer."""
    return None if value is None else float(f"{value:.5g}")
