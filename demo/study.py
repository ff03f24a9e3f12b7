"""The study: every method of classification on the embedded world, over several pairs of student and reward model.

    python -m demo.study train --pairs 1 2     # trains the further pairs; pair 0 is the shipped one
    python -m demo.study run                   # adapts to every picture with every method
    python -m demo.study report                # the table, the picture and the intervals

`run` goes on where it was stopped, and does two runs at a time, each on one thread. Everything lies below --output: the
trained models, and the runs on the pictures of each --seed and --per-class in a folder of their own.
Settings are chosen with --seed 1001, pictures that the reported figures (seed 2002) are not of.
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.study")

import contextlib
import io
import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from demo.study_report import write_report
from demo.world import TEST_SEED, write_classification
from rlcf.errors import UserError
from rlcf.run.config import Parser

STYLES = ("clean", "blur", "pixelate", "fog", "clutter", "noto")
VIEWS = "--views 12 --selection 0.5"
TOWER = f"{VIEWS} --tune image-encoder --lr 1e-4 --batchnorm frozen"
PROMPT = f"{VIEWS} --tune prompt --images-at-once 8"
ANCHORED = "--candidates both --learn-from-centre --kl-weight 0.1 --steps 5"
METHODS = {
    "zeroshot": ("zero-shot", "--method zeroshot"),
    "views": ("mean of the kept views", f"--method views {VIEWS}"),
    "zero": ("ZERO", f"--method zero {VIEWS}"),
    "mta": ("MTA", f"--method mta {VIEWS}"),
    "tda": ("TDA", f"--method tda {VIEWS}"),
    "tpt": ("TPT, prompt", f"--method tpt {PROMPT} --steps 1 --lr 5e-3"),
    "ctpt": ("C-TPT, prompt", f"--method ctpt {PROMPT} --steps 1 --lr 5e-3"),
    "kd": ("KD, image encoder", f"--method kd {TOWER}"),
    "rlcf-prompt": ("RLCF, prompt", f"--method rlcf {PROMPT} --lr 7e-3"),
    "rlcf": ("RLCF, image encoder", f"--method rlcf {TOWER}"),
    "grpo": ("GRPO's form, image encoder", f"--method rlcf {TOWER} --clip-ratio 0.2 --baseline all --divide-by-std"),
    "rlcf-both": ("RLCF, both's candidates", f"--method rlcf {TOWER} --candidates both"),
    "rlcf-anchored": ("RLCF anchored, image encoder", f"--method rlcf {TOWER} {ANCHORED}"),
    "rlcf-anchored-product": ("RLCF anchored, times reward", f"--method rlcf {TOWER} {ANCHORED} --answer product"),
    "rlcf-anchored-gate": ("RLCF anchored, gate", f"--method rlcf {TOWER} {ANCHORED} --gate agree"),
    "zero-reward": ("ZERO, the reward votes", f"--method zero --voter reward {VIEWS}"),
    "rerank": ("reward reranks the top 3", "--method rerank --pool centre"),
    "reward": ("reward model alone", "--method reward --pool centre"),
    "reward-views": ("reward model, kept views", f"--method reward {VIEWS}"),
    "mean": ("mean of both models", "--method ensemble --pool centre --combine mean"),
    "product": ("product of both models", "--method ensemble --pool centre"),
}
"""Name of the run -> the method's name in the table, and the flags of classification/main.py."""


def models(output: Path, pair: int) -> list[str]:
    """The flags that name a pair's models. Raises UserError for a pair that was not trained."""
    names = ["demo-student", "demo-reward"]
    if pair:
        folders = [output / "models" / f"{kind}-{pair}" for kind in ("student", "reward")]
        missing = next((f for f in folders if not (f / "open_clip_model.safetensors").is_file()), None)
        if missing is not None:
            raise UserError(f"there is no model {missing}; train it: python -m demo.study train --pairs {pair}")
        names = [str(folder) for folder in folders]
    return ["--student", names[0], "--reward", names[1]]


def train_pairs(output: Path, pairs: list[int], steps: int | None) -> None:
    """Train the student and the reward model of each pair, from seeds of its own."""
    from demo.train import RECIPES, train

    for pair in pairs:
        for kind, recipe in RECIPES.items():
            folder = output / "models" / f"{kind}-{pair}"
            if not (folder / "open_clip_model.safetensors").is_file():
                train(kind, steps, folder, seed=recipe.seed + 1000 * pair)


def run_method(output: Path, place: Path, pair: int, name: str) -> str:
    """One method with one pair on all styles, as classification/main.py does it. Returns the lines that it printed.

    output: holds the trained models; place: holds the pictures, and gets the run.
    """
    from classification.main import main as classify

    folder = place / f"pair-{pair}" / name
    if (folder / "done").exists():
        return ""
    flags = [
        "--data",
        str(place / "pictures"),
        "--datasets",
        *(f"folder:{style}" for style in STYLES),
        *METHODS[name][1].split(),
    ]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        classify([*models(output, pair), *flags, "--output", str(folder), "--device", "cpu", "--workers", "0"])
    (folder / "done").touch()
    return "".join(f"pair {pair}, {name}: {line}\n" for line in printed.getvalue().splitlines())


def run_all(output: Path, place: Path, pairs: list[int], names: list[str], per_class: int, seed: int) -> None:
    """Write the pictures, then run every method with every pair, two at a time. output, place: as in `run_method`."""
    data = place / "pictures"
    for style in STYLES:
        if not (data / style).is_dir():
            write_classification(data / style, style, per_class, seed)
    for pair in pairs:
        models(output, pair)  # told before the first run
    (place / "study.json").write_text(json.dumps({"pairs": pairs, "per_class": per_class, "seed": seed}) + "\n")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(run_method, output, place, pair, name) for pair in pairs for name in names]
        for run in runs:
            print(run.result(), end="", flush=True)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("what", choices=("train", "run", "report"))
    parser.add_argument("--output", type=Path, default=Path("output/study"))
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 1, 2], help="0: the shipped pair")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--per-class", type=int, default=5, help="pictures of each of the hundred classes and styles")
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="of the pictures")
    parser.add_argument("--steps", type=int, help="of a training, fewer or more than the recipe's")
    args = parser.parse_args()
    place = args.output / f"seed-{args.seed}-{args.per_class}"
    place.mkdir(parents=True, exist_ok=True)
    if args.what == "train":
        train_pairs(args.output, [pair for pair in args.pairs if pair], args.steps)
    elif args.what == "run":
        run_all(args.output, place, args.pairs, args.methods, args.per_class, args.seed)
    else:
        write_report(place, {name: title for name, (title, _) in METHODS.items()}, STYLES)
