"""Evaluate captions: BLEU, METEOR, ROUGE-L, CIDEr and SPICE against references, CLIPScore against the images.

CLIPScore = 2.5 * max(cos(image, "A photo depicts " + caption), 0); RefCLIPScore is its harmonic mean with the best
similarity to a reference (Hessel et al., EMNLP 2021).
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from clipscore.captions import Captions, match_captions, read_json
from clipscore.java import check_spice, java_version
from clipscore.scores import PREFIX, clip_scores, reference_scores
from rlcf.clip.backbone import Backbone, load_clip
from rlcf.errors import UserError, run_main
from rlcf.run.config import Config, Parser, command_line, resolve_device, resolve_precision
from rlcf.run.files import write_atomically
from rlcf.run.records import versions

EPILOG = """examples:
  python clipscore/main.py candidates.json IMAGES
  python clipscore/main.py candidates.json IMAGES --references refs.json --output scores.json
  python clipscore/main.py candidates.json IMAGES --references refs.json --clip ViT-L/14 --save-per-instance each.json

candidates.json holds {"image name": "caption"}, refs.json {"image name": ["caption", ...]}. An image name is a path
below IMAGES; its suffix may be left out. Papers print the metrics against references times 100. CIDEr weighs words by
how rare they are among the other images' references, so that of one image is 0.
"""

PTB, BUILT_IN = "PTB (Stanford CoreNLP 3.4.1)", "built-in (clipscore/tokenizer.py)"


@dataclass(frozen=True)
class Evaluation:
    """scores: metric -> value for all captions; per_instance: image name -> metric -> value; n: number of captions.

    tokenizer: what split captions into words for the metrics against references; None without references.
    """

    scores: dict[str, float]
    per_instance: dict[str, dict[str, float]]
    tokenizer: str | None

    @property
    def n(self) -> int:
        return len(self.per_instance)


def evaluate(
    captions: Captions,
    clip: Backbone,
    with_java: bool,
    spice: bool = False,
    prefix: str = PREFIX,
    workers: int = 2,
) -> Evaluation:
    """Every metric of captions: against references where there are any, and with their images.

    captions: from `match_captions`; with_java: whether to use the programs that need Java, as `use_java` tells;
    spice: SPICE also; prefix: stands before each caption for the CLIP. Raises UserError for an image that cannot be
    read and for a Java program that fails.
    """
    scores, tokenizer = {}, None
    if captions.references is not None:
        scores = reference_scores(captions.candidates, captions.references, with_java, spice)
        tokenizer = PTB if with_java else BUILT_IN
    scores |= clip_scores(captions, clip, prefix, workers)
    rows = zip(*(parts for _, parts in scores.values()), strict=True)
    per_instance = {name: dict(zip(scores, row, strict=True)) for name, row in zip(captions.names, rows, strict=True)}
    return Evaluation({name: whole for name, (whole, _) in scores.items()}, per_instance, tokenizer)


def use_java(require: bool = False, never: bool = False, spice: bool = False) -> bool:
    """Whether the Java programs take part: if a Java runtime starts. Says on standard error what is left out.

    Raises UserError when Java is required and there is none, or SPICE is asked for and cannot run.
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


def as_table(evaluation: Evaluation, clip: str) -> str:
    split = f", words split by the tokenizer {evaluation.tokenizer}" if evaluation.tokenizer else ""
    lines = [f"{evaluation.n} captions, CLIPScore by {clip}{split}"]
    return "\n".join([*lines, *(f"{name:<13}{value:8.4f}" for name, value in evaluation.scores.items())])


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=118),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("candidates", metavar="candidates.json", help='{"image name": "caption"}')
    add("image_dir", metavar="IMAGES", help="folder of the images")
    add("--references", metavar="FILE", help='{"image name": ["caption", ...]}; without it CLIPScore alone')
    add("--output", metavar="FILE", help="write the scores as JSON")
    add(
        "--save-per-instance", metavar="FILE", help="write each caption's scores as JSON: {image name: {metric: value}}"
    )
    add("--spice", action="store_true", help="SPICE also (slow; needs Java 8 to 14 and Stanford CoreNLP 3.6.0)")
    java = parser.add_mutually_exclusive_group()
    java.add_argument("--require-java", action="store_true", help="refuse to run without the metrics that need Java")
    java.add_argument(
        "--no-java", action="store_true", help="built-in tokenizer and no METEOR even where there is Java"
    )
    add("--clip", metavar="NAME", default="ViT-B/32", help="OpenAI or open_clip name, hf-hub:..., path (ViT-B/32)")
    add("--clip-root", metavar="DIR", help="folder with OpenAI's files (ViT-B-32.pt, ...)")
    add("--prefix", metavar="TEXT", default=PREFIX, help=f"before each caption ('{PREFIX}'); demo-... models want ''")
    add("--device", default="auto", help="auto (CUDA when there is one), cpu, cuda or cuda:N")
    add(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="auto (fp16 autocast on CUDA, fp32 on CPU), fp32, bf16 or fp16",
    )
    add("--workers", metavar="N", type=_count, default=2, help="processes that read images; 0: none but this one")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 0")
    return int(text)


def _make_room(file: str) -> None:
    """Before the work: so that its end is not lost."""
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder of {file} ({error.strerror}); choose another place") from error
    if Path(file).is_dir() or not os.access(Path(file).parent, os.W_OK):
        raise UserError(f"cannot write {file}; choose another place")


def _write(file: str, content: Any) -> None:
    write_atomically(Path(file), json.dumps(content, indent=2) + "\n")


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    config = Config(device=args.device, precision=args.precision)
    device = resolve_device(config)
    references = read_json(args.references) if args.references else None
    if args.spice and references is None:
        raise UserError("--spice compares with references; give --references too")
    captions = match_captions(read_json(args.candidates), args.image_dir, references)
    needed = references is not None or args.require_java
    with_java = needed and use_java(args.require_java, args.no_java, args.spice)
    for file in filter(None, (args.output, args.save_per_instance)):
        _make_room(file)
    clip = load_clip(args.clip, device, resolve_precision(config, device), args.clip_root)
    evaluation = evaluate(captions, clip, with_java, args.spice, args.prefix, args.workers)
    print(as_table(evaluation, args.clip))
    if args.save_per_instance:
        _write(args.save_per_instance, evaluation.per_instance)
    if args.output:
        result = {"scores": evaluation.scores, "n": evaluation.n, "tokenizer": evaluation.tokenizer}
        result |= {
            "clip": args.clip,
            "prefix": args.prefix,
            "precision": clip.precision,
            "command": command_line("clipscore/main.py", argv),
        }
        packages = ("torch", "open_clip_torch", "pycocoevalcap")
        _write(args.output, result | {"versions": versions(packages)})


cli = partial(run_main, main)

if __name__ == "__main__":
    cli()
