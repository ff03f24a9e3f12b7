"""Evaluate captions: BLEU, METEOR, ROUGE-L, CIDEr and SPICE against references, CLIPScore against the images.

CLIPScore = 2.5 * max(cos(image, "A photo depicts " + caption), 0); RefCLIPScore is its harmonic mean with the best
similarity to a reference (Hessel et al., EMNLP 2021).
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("clipscore.main")

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from clipscore.captions import PREFIX, match_captions, read_candidates, read_references
from clipscore.evaluate import Evaluation, evaluate, use_java, write_evaluation
from rlcf.errors import UserError
from rlcf.inputs.places import expanded
from rlcf.run.config import Settings, command_line
from rlcf.run.parser import Parser
from rlcf.run.presence import require_clip
from rlcf.start import importing

if TYPE_CHECKING:
    from rlcf.clip.backbone import Backbone

EPILOG = """examples:
  python clipscore/main.py candidates.json IMAGES
  python clipscore/main.py candidates.json IMAGES --references refs.json --output scores.json
  python clipscore/main.py candidates.json IMAGES --references refs.json --clip ViT-L/14 --save-per-instance each.json
  python clipscore/main.py candidates.json --references refs.json --clip none

candidates.json holds {"image name": "caption"}, refs.json {"image name": ["caption", ...]}. An image name is a path
below IMAGES; its suffix may be left out. Candidates may also be COCO's results, [{"image_id", "caption"}, ...], and
references a list of captions in any form that the tasks read; COCO's annotations tell the images of the ids.
Papers print the metrics against references times 100. CIDEr weighs words by how rare they are among the other images'
references, so that of one image is 0.
"""


def as_table(evaluation: Evaluation) -> str:
    """The scores as they are printed."""
    line = f"{evaluation.n} captions"
    line += f" ({evaluation.empty} without words, which score 0)" if evaluation.empty else ""
    line += f", CLIPScore by {evaluation.clip}" if evaluation.clip else ""
    line += f", tokenizer: {evaluation.tokenizer}" if evaluation.tokenizer else ""
    line += f", {evaluation.cut} captions or references cut at the CLIP's context" if evaluation.cut else ""
    return "\n".join([line, *(f"{name:<13}{value:8.4f}" for name, value in evaluation.scores.items())])


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add("candidates", metavar="candidates.json", type=expanded, help='{"image name": "caption"}')
    add("image_dir", metavar="IMAGES", nargs="?", type=expanded, help="folder of the images; none for --clip none")
    add(
        "--references",
        metavar="FILE",
        type=expanded,
        help='{"image name": ["caption", ...]}; without it CLIPScore alone',
    )
    add("--output", metavar="FILE", type=expanded, help="write the scores as JSON")
    add(
        "--save-per-instance",
        metavar="FILE",
        type=expanded,
        help="write each caption's scores as JSON: {image name: {metric: value}}",
    )
    add(
        "--image-reading",
        default="upright",
        choices=("upright", "published"),
        help="upright, in 8 bits and on white, as people see pictures; published: as CLIPScore's authors read them",
    )
    add("--spice", action="store_true", help="SPICE also (slow; needs Java 8 to 14 and Stanford CoreNLP 3.6.0)")
    java = parser.add_mutually_exclusive_group()
    java.add_argument("--require-java", action="store_true", help="refuse to run without the metrics that need Java")
    java.add_argument(
        "--no-java", action="store_true", help="built-in tokenizer and no METEOR even where there is Java"
    )
    add(
        "--clip",
        metavar="NAME",
        default="ViT-B/32",
        help="OpenAI or open_clip name, hf-hub:..., path (ViT-B/32); none: the metrics against references alone",
    )
    add("--clip-root", metavar="DIR", help="folder with OpenAI's files (ViT-B-32.pt, ...)")
    add("--prefix", metavar="TEXT", default=PREFIX, help=f"before each caption ('{PREFIX}'); demo-... models want ''")
    add("--device", default="auto", help="auto (CUDA when there is one), cpu, cuda or cuda:N")
    add(
        "--precision",
        default="auto",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="auto (fp16 autocast on CUDA, fp32 on CPU), fp32, bf16 or fp16",
    )
    add("--deterministic", action="store_true", help="on CUDA use only kernels that give equal digits in each run")
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


def load(args: argparse.Namespace) -> "Backbone":
    """The CLIP that the flags name. Raises UserError as `resolve_device` and `load_clip`."""
    with importing():  # of torch, now that the settings are right
        from rlcf.clip.loading import load_clip
        from rlcf.run.device import resolve_device, resolve_precision
    config = Settings(device=args.device, precision=args.precision, deterministic=args.deterministic)
    device = resolve_device(config)
    return load_clip(args.clip, device, resolve_precision(config, device), args.clip_root)


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    without_clip = args.clip == "none"
    if without_clip and args.references is None:
        raise UserError("--clip none leaves the metrics against references alone; give --references")
    if not without_clip:
        if args.image_dir is None:
            raise UserError("CLIPScore needs the folder of the images: candidates.json IMAGES; or pass --clip none")
        require_clip("--clip", args.clip)
    if args.spice and args.references is None:
        raise UserError("--spice compares with references; give --references too")
    references = read_references(args.references) if args.references else None
    captions = match_captions(
        read_candidates(args.candidates, references), None if without_clip else args.image_dir, references
    )
    for file in filter(None, (args.output, args.save_per_instance)):
        _make_room(file)
    needed = references is not None or args.require_java
    with_java = needed and use_java(args.require_java, args.no_java, args.spice)
    clip = None if without_clip else load(args)
    evaluation = evaluate(
        captions, clip, with_java, args.spice, args.prefix, args.workers, args.image_reading == "published"
    )
    print(as_table(evaluation))
    output, each = (Path(file) if file else None for file in (args.output, args.save_per_instance))
    write_evaluation(evaluation, output, each, command_line("clipscore/main.py", argv))
