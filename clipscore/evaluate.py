"""The evaluation of captions: every metric at once, and the files that its scores are written to."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipscore.captions import PREFIX, Captions
from clipscore.java import check_spice, java_version
from clipscore.scores import Scores, reference_scores
from rlcf.errors import UserError
from rlcf.run.config import command_line
from rlcf.run.files import write_atomically
from rlcf.run.folder import versions
from rlcf.start import importing

if TYPE_CHECKING:
    from rlcf.clip.backbone import Backbone

PTB, BUILT_IN = "PTB (Stanford CoreNLP 3.4.1)", "built-in (clipscore/tokenizer.py)"


@dataclass(frozen=True)
class Evaluation:
    """The scores of n captions.

    scores: metric -> value for all captions; per_instance: image name -> metric -> value; tokenizer: the one that split
    captions into words for the metrics against references, None without references. clip: name of the CLIP, prefix:
    what stood before each caption for it, precision: what it computed in, None without a CLIP; cut: captions and
    references that were longer than its context; empty: captions without words.
    """

    scores: dict[str, float]
    per_instance: dict[str, dict[str, float]]
    tokenizer: str | None = None
    clip: str | None = None
    prefix: str | None = None
    precision: str | None = None
    cut: int = 0
    empty: int = 0

    @property
    def n(self) -> int:
        return len(self.per_instance)


def evaluate(
    captions: Captions,
    clip: "Backbone | str | None" = "ViT-B/32",
    with_java: bool = False,
    spice: bool = False,
    prefix: str = PREFIX,
    workers: int = 2,
    published: bool = False,
) -> Evaluation:
    """Every metric of captions: against references where there are any, and by a CLIP with their images.

    captions: from `match_captions`; clip: one that is loaded, or its name, or None for the metrics against references
    alone; with_java: use the programs that need Java, METEOR and the PTB tokenizer (see `use_java`); spice: SPICE also;
    prefix: stands before each caption for the CLIP; workers: processes that read images; published: read them as the
    published code reads its datasets. A candidate without words scores 0. Raises UserError for a word that the CLIP
    does not know, an image that cannot be read, and a Java program that fails.

    >>> from clipscore.captions import match_captions
    >>> captions = match_captions({"dog.jpg": "a dog runs"}, references={"dog.jpg": ["a dog is running", "a dog runs"]})
    >>> evaluation = evaluate(captions, clip=None)
    >>> print({metric: round(value, 4) for metric, value in evaluation.scores.items() if metric != "BLEU-4"})
    {'BLEU-1': 1.0, 'BLEU-2': 1.0, 'BLEU-3': 1.0, 'ROUGE-L': 1.0, 'CIDEr': 0.0}

    With images, `evaluate(match_captions({"dog.jpg": "a dog runs"}, "images"), "ViT-B/32").scores["CLIPScore"]`.
    """
    if clip is None and captions.references is None:
        raise UserError("without a CLIP there are the metrics against references alone; give --references")
    told: dict[str, Any] = {}
    if clip is not None:
        with importing():  # of torch, which the other metrics do not need
            from clipscore.clip_scores import clip_scores, count_cut
            from rlcf.clip.loading import load_clip
        clip = load_clip(clip) if isinstance(clip, str) else clip
        told = {"clip": clip.name, "prefix": prefix, "precision": clip.precision}
        told["cut"] = count_cut(captions, clip, prefix)  # may refuse a caption; what comes next takes long
    scores: Scores = {}
    if captions.references is not None:
        scores = reference_scores(captions.candidates, captions.references, with_java, spice)
        told["tokenizer"] = PTB if with_java else BUILT_IN
    if clip is not None:
        scores |= clip_scores(captions, clip, prefix, workers, published)
    rows = zip(*(parts for _, parts in scores.values()), strict=True)
    per_instance = {name: dict(zip(scores, row, strict=True)) for name, row in zip(captions.names, rows, strict=True)}
    whole = {name: value for name, (value, _) in scores.items()}
    return Evaluation(whole, per_instance, empty=len(captions.empty), **told)


def write_evaluation(
    evaluation: Evaluation, output: Path | None = None, each: Path | None = None, command: str | None = None
) -> None:
    """Write the scores as JSON. output: file of those of all captions; each: file of each caption's.

    command: the command line that the first file tells, this process's when not given.
    """
    if each is not None:
        write_atomically(each, json.dumps(evaluation.per_instance, indent=2) + "\n")
    if output is not None:
        result = {"scores": evaluation.scores, "n": evaluation.n, "tokenizer": evaluation.tokenizer}
        result |= {"clip": evaluation.clip, "prefix": evaluation.prefix, "precision": evaluation.precision}
        result |= {"cut": evaluation.cut, "empty": evaluation.empty}
        packages = ("torch", "open_clip_torch", "pycocoevalcap")
        result |= {"command": command or command_line(), "versions": versions(packages)}
        write_atomically(output, json.dumps(result, indent=2) + "\n")


def use_java(require: bool = False, never: bool = False, spice: bool = False) -> bool:
    """True where the Java programs take part: a Java runtime starts. Prints what is left out on standard error.

    Raises UserError when Java is required and there is none, does not answer in time, or SPICE is asked for and cannot
    run.
    """
    version = None if never else java_version()
    if version is None and require:
        raise UserError("no Java runtime starts ('java -version' fails); install one or leave --require-java out")
    if version is None:
        why = "--no-java" if never else "no Java runtime starts"
        left_out = "METEOR and SPICE are" if spice else "METEOR is"
        print(f"{why}: {left_out} left out; captions are split by the built-in tokenizer", file=sys.stderr)
    elif spice:
        check_spice(version)
    return version is not None
