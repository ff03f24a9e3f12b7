"""Caption images with a captioner that adapts to each: zero-shot captions beside adapted ones.

    python examples/describe.py photo.jpg --checkpoint ckpt-latest.pt --student ViT-B/16 --reward ViT-L/14
    python examples/describe.py photos

takes an image or a folder of images; without flags the captioner is the shipped one, which knows emoji.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from caption import Captioner
from rlcf.errors import run_main
from rlcf.inputs.folders import LeftOut, scan
from rlcf.run.parser import Parser


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("images", type=Path, help="an image, or a folder of them")
    parser.add_argument("--checkpoint", default="demo-clipcap", help="the captioner")
    parser.add_argument("--language-model", default="demo-lm", help="the language model that it was trained with")
    parser.add_argument("--student", default="demo-student", help="the CLIP that it was trained with")
    parser.add_argument("--reward", nargs="+", default=["demo-reward"], help="the CLIP that rewards it")
    args = parser.parse_args()

    models = {"checkpoint": args.checkpoint, "language_model": args.language_model, "student": args.student}
    captioner = Captioner(**models, reward=args.reward, steps=4, lr=1e-4, sample_k=10)
    for number, file in enumerate(scan(args.images, LeftOut()) if args.images.is_dir() else [args.images]):
        answer = captioner(file, number)
        print(f"{file.name}: zero-shot '{answer.zero_shot}', adapted '{answer.adapted}'")


if __name__ == "__main__":
    run_main(main)
