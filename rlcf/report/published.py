"""Figures that papers report, to stand beside runs with the settings of their experiments. None was measured here."""

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Published:
    """A row of a paper's table. name: of the method; source: the paper; metric: in percent; values: by dataset."""

    name: str
    source: str
    metric: str
    values: dict[str, float]


def published_of(task: str, config: Mapping[str, Any]) -> list[Published]:
    """The papers' figures of the experiment that a run repeats: one with all the settings that published.json names.

    A text in published.json may be a pattern, such as "*coop*".
    """
    entries = json.loads((resources.files("rlcf.report") / "published.json").read_text(encoding="utf-8"))
    return [
        Published(entry["name"], entry["source"], entry["metric"], entry["values"])
        for entry in entries
        if entry["task"] == task and all(_is(config.get(key), value) for key, value in entry["settings"].items())
    ]


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and isinstance(value, str):
        return fnmatch.fnmatchcase(value, wanted)
    return bool(value == wanted)
