"""The captions of a run as clipscore/main.py reads them, and what that command says of them."""

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipscore import main as clipscore
from rlcf.errors import UserError
from rlcf.metrics import paired_bootstrap
from rlcf.run.files import write_atomically
from rlcf.run.records import Record

CANDIDATES = {"zero_shot": "candidates-zero-shot.json", "adapted": "candidates.json"}
SCORES = {"zero_shot": "scores-zero-shot.json", "adapted": "scores.json"}
REFERENCES = "references.json"
NO_MEANS = ("BLEU", "METEOR")
"""Metrics whose value for the corpus is not the mean of the captions' own."""


def write_captions(folder: Path, records: Sequence[Record]) -> None:
    """candidates.json, candidates-zero-shot.json and, where every image has some, references.json."""
    folder.mkdir(exist_ok=True)
    files: dict[str, Any] = {
        file: {record["id"]: record[name] for record in records} for name, file in CANDIDATES.items()
    }
    if all(record["references"] for record in records):
        files[REFERENCES] = {record["id"]: record["references"] for record in records}
    for file, captions in files.items():
        write_atomically(folder / file, json.dumps(captions, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Evaluation:
    """How clipscore/main.py is called, by its function.

    clip: its CLIP; prefix: what stands before each caption for it; java: whether Java may take part.
    """

    clip: str
    prefix: str
    java: bool
    clip_root: str | None
    device: str
    workers: int

    def __call__(self, folder: Path, images: Path) -> dict[str, Any]:
        """Scores of a folder that `write_captions` filled.

        images: what the candidates' names start from. Returns {"zero_shot": {metric: value}, "adapted": ..., "gains":
        {metric: {"mean", "low", "high"}}}, 95% intervals; BLEU's and METEOR's are of the captions' own values. Raises
        UserError when the command refuses or fails.
        """
        scores, each = {}, {}
        for name, candidates in CANDIDATES.items():
            output, instances = folder / SCORES[name], folder / f"each-{SCORES[name]}"
            self._run(folder, candidates, images, output, instances)
            scores[name] = json.loads(output.read_text())["scores"]
            each[name] = json.loads(instances.read_text())
        gains = {}
        for metric in scores["adapted"]:
            before, after = ([row[metric] for row in each[name].values()] for name in CANDIDATES)
            mean, low, high = paired_bootstrap(before, after)
            gains[f"{metric} of captions" if metric.startswith(NO_MEANS) else metric] = {
                "mean": mean,
                "low": low,
                "high": high,
            }
        return {**scores, "gains": gains}

    def _run(self, folder: Path, candidates: str, images: Path, output: Path, instances: Path) -> None:
        arguments = [str(folder / candidates), str(images), "--output", str(output)]
        arguments += ["--save-per-instance", str(instances), "--clip", self.clip, "--prefix", self.prefix]
        arguments += ["--device", self.device, "--workers", str(self.workers)]
        if (folder / REFERENCES).exists():
            arguments += ["--references", str(folder / REFERENCES)]
        if not self.java:
            arguments += ["--no-java"]
        if self.clip_root is not None:
            arguments += ["--clip-root", self.clip_root]
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                clipscore.main(arguments)
        except (UserError, OSError, RuntimeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"the captions were made, but clipscore/main.py cannot score them: {said}") from error
