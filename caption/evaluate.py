"""The captions of a run as files that clipscore/main.py reads, and the scores that its function gives them."""

from collections.abc import Callable, Iterable
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from caption.config import CaptionConfig
from caption.datasets import Dataset
from caption.metrics import ANSWERS, gain_of
from clipscore.captions import match_captions
from clipscore.evaluate import Evaluation, evaluate, use_java, write_evaluation
from rlcf.clip.backbone import Backbone
from rlcf.clip.loading import load_clip
from rlcf.errors import UserError
from rlcf.run.config import Settings
from rlcf.run.device import resolve_precision
from rlcf.run.files import write_entries_atomically, writing
from rlcf.run.folder import tell
from rlcf.run.record_lines import Record
from rlcf.run.summary import Summary, answered, gain

CANDIDATES = {"zero_shot": "candidates-zero-shot.json", "adapted": "candidates.json"}
SCORES = {"zero_shot": "scores-zero-shot.json", "adapted": "scores.json"}
REFERENCES = "references.json"


def candidates(records: Iterable[Record], name: str) -> dict[str, str]:
    """Image -> caption. name: one of `ANSWERS`."""
    return {record["id"]: record[name] for record in answered(records)}


def references(records: Iterable[Record]) -> dict[str, list[str]] | None:
    """Image -> its references; None unless every image has some."""
    found = {}
    for record in answered(records):
        if not record["references"]:
            return None
        found[record["id"]] = record["references"]
    return found


def write_captions(folder: Path, records: Iterable[Record]) -> None:
    """Write candidates.json, candidates-zero-shot.json and, where every image has some, references.json."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
    of: dict[str, Callable[[Record], Any]] = {CANDIDATES[name]: itemgetter(name) for name in ANSWERS}
    if all(record["references"] for record in answered(records)):
        of[REFERENCES] = itemgetter("references")
    for file, value in of.items():
        write_entries_atomically(folder / file, ((record["id"], value(record)) for record in answered(records)))


class Evaluator:
    """Scores the captions of a run. Its CLIP is loaded when it is first needed, once for all datasets."""

    def __init__(self, config: CaptionConfig, device: torch.device) -> None:
        self.config, self.device = config, device

    def score(self, folder: Path, records: Iterable[Record], dataset: Dataset, summary: Summary) -> None:
        """Score the captions before and after, write the scores into `folder`, and add them to the summary.

        dataset: the records'. The summary's "zero_shot" and "adapted" get each metric,
        its "gains" get {metric: {"mean", "low", "high"}} with 95% intervals; those of BLEU and METEOR are of the
        captions' own values. Raises UserError when the captions cannot be scored.
        """
        try:
            found = {name: self._evaluate(folder, records, name, dataset) for name in ANSWERS}
        except (UserError, OSError, RuntimeError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0].replace("--no-java", "--no-evaluate-java")
            raise UserError(f"the captions were made, but clipscore/main.py cannot score them: {said}") from error
        gains = {}
        for metric in found["adapted"].scores:
            before, after = ([row[metric] for row in found[name].per_instance.values()] for name in ANSWERS)
            gains[gain_of(metric)] = gain(before, after)
        for name, evaluation in found.items():
            summary[name] |= evaluation.scores
            if evaluation.empty:
                summary[name]["captions_without_words"] = evaluation.empty
                told = f"{folder / CANDIDATES[name]}: {evaluation.empty} of {evaluation.n} captions have no words"
                tell(f"{told} and score 0")
        summary["gains"] = gains

    def _evaluate(self, folder: Path, records: Iterable[Record], name: str, dataset: Dataset) -> Evaluation:
        sources = dict(zip(dataset.ids, dataset.files, strict=True))
        captions = match_captions(candidates(records, name), sources, references(records))
        with_java = captions.references is not None and self._java
        prefix, workers = self.config.evaluate_prefix, self.config.workers
        published = self.config.reads_as_published(dataset.published)
        evaluation = evaluate(captions, self._clip, with_java, prefix=prefix, workers=workers, published=published)
        write_evaluation(evaluation, folder / SCORES[name], folder / f"each-{SCORES[name]}")
        return evaluation

    @cached_property
    def _clip(self) -> Backbone:
        """In the precision that clipscore/main.py computes in, whatever the run's."""
        config = self.config
        return load_clip(
            config.evaluate_clip, self.device, resolve_precision(Settings(), self.device), config.clip_root
        )

    @cached_property
    def _java(self) -> bool:
        return self.config.evaluate_java and use_java()
