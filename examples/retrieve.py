"""Find the images of a folder that a text describes, with a CLIP that adapts to the text.

    python examples/retrieve.py photos "two dogs on a beach"
    python examples/retrieve.py photos "a dog above a cat" --student demo-student --reward demo-reward

prints the three likeliest images before and after. `Retriever(texts=[...])` is the other direction: called with an
image, it ranks the texts.
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from retrieval import Retriever
from rlcf.errors import run_main
from rlcf.inputs.folders import LeftOut, scan
from rlcf.run.parser import Parser


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the images")
    parser.add_argument("text", help="a description of the image that is looked for")
    parser.add_argument("--student", default="ViT-B/16", help="the CLIP that adapts")
    parser.add_argument("--reward", nargs="+", default=["ViT-L/14"], help="the CLIP that rewards it")
    args = parser.parse_args()

    files = scan(args.folder, LeftOut()) if args.folder.is_dir() else [args.folder]
    k = min(12, len(files))
    retriever = Retriever(images=files, student=args.student, reward=args.reward, steps=8, lr=1e-5, sample_k=k)
    answer = retriever(args.text)
    for when, ranking in (("zero-shot", answer.zero_shot_ranking), ("adapted", answer.ranking)):
        print(f"{when}: {', '.join(files[place].name for place in ranking[:3])}")


if __name__ == "__main__":
    run_main(main)
