"""Classify images with a CLIP that adapts to each: zero-shot answers beside adapted ones.

    python examples/classify.py photo.jpg cat dog horse
    python examples/classify.py photos cat dog horse --student demo-student --reward demo-reward

takes an image or a folder of images, and the names of the classes.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classification import Classifier
from rlcf.errors import run_main
from rlcf.inputs.folders import LeftOut, scan
from rlcf.run.parser import Parser


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("images", type=Path, help="an image, or a folder of them")
    parser.add_argument("names", nargs="+", help="the classes")
    parser.add_argument("--student", default="ViT-B/16", help="the CLIP that adapts")
    parser.add_argument("--reward", nargs="+", default=["ViT-L/14"], help="the CLIP that rewards it")
    args = parser.parse_args()

    k = min(3, len(args.names))
    classifier = Classifier(args.names, student=args.student, reward=args.reward, tune="prompt", lr=7e-3, sample_k=k)
    for number, file in enumerate(scan(args.images, LeftOut()) if args.images.is_dir() else [args.images]):
        answer = classifier(file, number)
        before, after = f"{answer.zero_shot.max():.0%}", f"{answer.adapted.max():.0%}"
        print(f"{file.name}: zero-shot {answer.zero_shot_label} ({before}), adapted {answer.label} ({after})")


if __name__ == "__main__":
    run_main(main)
