"""The study: which method should one use, and is RLCF's gain real? All three tasks on the embedded world.

    python -m demo.study train                 # trains the further pairs of student and reward model
    python -m demo.study run                   # adapts to every picture with every method
    python -m demo.study report                # the tables, the picture and the intervals

`--tasks classification` is that one alone. `run` goes on where it was stopped, and does two runs at a time, each on one
thread. Everything lies below --output: the trained models, and the runs of a task on the pictures of a --seed in a
folder of their own. Settings are chosen with --seed 1001, pictures that the reported figures (seed 2002) are not of.
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.study")

import contextlib
import importlib
import io
import json
import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from demo.study_methods import TASKS, Task
from demo.study_passes import passes_of
from demo.study_report import write_report
from demo.world import TEST_SEED
from rlcf.errors import UserError
from rlcf.run.config import Parser
from rlcf.run.files import write_atomically

KINDS = ("reward", "student")  # the longer training first


def models_of(output: Path, pair: int) -> tuple[str, str]:
    """A pair's student and reward model. Raises UserError for a pair that was not trained."""
    if not pair:
        return "demo-student", "demo-reward"
    folders = [output / "models" / f"{kind}-{pair}" for kind in ("student", "reward")]
    missing = next((f for f in folders if not (f / "open_clip_model.safetensors").is_file()), None)
    if missing is not None:
        raise UserError(f"there is no model {missing}; train it: python -m demo.study train --pairs {pair}")
    return str(folders[0]), str(folders[1])


def flags_of(task: Task, name: str, models: tuple[str, str]) -> list[str]:
    """The flags of a run: its models, and the method's own."""
    student, reward = models
    own = [word.format(student=student, reward=reward) for word in shlex.split(task.methods[name][1])]
    return ["--student", student, "--reward", reward, *own, "--device", "cpu"]


def train_pairs(output: Path, pairs: Sequence[int], steps: int | None, compiled: bool) -> None:
    """Train the student and the reward model of each pair, from seeds of its own, two models at a time."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    with ProcessPoolExecutor(2) as pool:
        for training in [
            pool.submit(train_one, output, kind, pair, steps, compiled) for pair in pairs for kind in KINDS
        ]:
            training.result()


def train_one(output: Path, kind: str, pair: int, steps: int | None, compiled: bool) -> None:
    """Train one model, unless it is there."""
    import torch

    from demo.train import RECIPES, train

    folder = output / "models" / f"{kind}-{pair}"
    if not (folder / "open_clip_model.safetensors").is_file():
        torch.set_grad_enabled(True)
        train(kind, steps, folder, RECIPES[kind].seed + 1000 * pair, compiled)


def run_method(place: Path, task: Task, pair: int, models: tuple[str, str], name: str) -> str:
    """One method with one pair on all styles, as the task's script does it. Returns the lines that it printed.

    place: holds the pictures, and gets the run.
    """
    folder = place / f"pair-{pair}" / name
    if (folder / "done").exists():
        return ""
    data = ["--data", str(place / "pictures"), "--datasets", *(f"{task.lists}:{style}" for style in task.styles)]
    flags, printed = flags_of(task, name, models), io.StringIO()
    main = importlib.import_module(f"{task.script}.main").main
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        main([*data, *flags, "--output", str(folder), "--workers", "0"])
    write_atomically(folder / "done", json.dumps(passes_of(task, place / "pictures", flags)))
    return "".join(f"pair {pair}, {name}: {line}\n" for line in printed.getvalue().splitlines())


def run_task(output: Path, place: Path, task: Task, pairs: Sequence[int], names: Sequence[str], seed: int) -> None:
    """Write the pictures, then run every method with every pair, two at a time. output, place: of models and runs."""
    models = {pair: models_of(output, pair) for pair in pairs}
    for style in task.styles:
        if not (place / "pictures" / style).is_dir():
            task.write(place / "pictures", style, task.size, seed)
    about = {"pairs": list(pairs), "size": task.size, "seed": seed, "styles": list(task.styles)}
    write_atomically(place / "study.json", json.dumps(about) + "\n")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    with ProcessPoolExecutor(2) as pool:
        runs = [pool.submit(run_method, place, task, pair, models[pair], name) for pair in pairs for name in names]
        for run in runs:
            print(run.result(), end="", flush=True)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("what", choices=("train", "run", "report"))
    parser.add_argument("--output", type=Path, default=Path("output/study"))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--pairs", type=int, nargs="+", help="0: the shipped pair (default: all of each task)")
    parser.add_argument("--methods", nargs="+", help="names of runs (default: all)")
    parser.add_argument("--seed", type=int, default=TEST_SEED, help="of the pictures")
    parser.add_argument("--steps", type=int, help="of a training, fewer or more than the recipe's")
    parser.add_argument("--compile", action="store_true", help="train faster (needs a C++ compiler)")
    args = parser.parse_args()
    if args.what == "train":
        train_pairs(args.output, [pair for pair in args.pairs or (1, 2) if pair], args.steps, args.compile)
        return
    for name in args.tasks:
        task, place = TASKS[name], args.output / f"{name}-{args.seed}"
        unknown = sorted(set(args.methods or ()) - task.methods.keys())
        if unknown:
            raise UserError(f"--methods {unknown[0]} is no run of {name}; there are {', '.join(task.methods)}")
        place.mkdir(parents=True, exist_ok=True)
        if args.what == "run":
            run_task(args.output, place, task, args.pairs or task.pairs, args.methods or list(task.methods), args.seed)
        else:
            write_report(place, task)
