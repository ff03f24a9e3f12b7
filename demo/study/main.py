"""The study: which method should one use, and is RLCF's gain real? All three tasks on the embedded world.

    python -m demo.study                       # all of it, in four steps:
    python -m demo.study train                 # trains the further pairs of student and reward model
    python -m demo.study run                   # adapts to every picture with every method
    python -m demo.study cost                  # times every method on a few pictures, and counts its passes
    python -m demo.study report                # the tables, the picture and the intervals

`--tasks classification` is that one alone. What was trained or run is not done again, and a run goes on where it was
stopped; two go at a time, each on one thread. The trained models, and the runs of a task on the pictures of a --seed,
lie below --output. What became of each picture is kept below --outcomes, from which `report` makes the tables: those of
docs/study.md again with `--outcomes docs/study`.

    python -m demo.study run --tasks choices   # what settings were chosen from: other pictures, of seed 1001
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from demo.runs import SHIPPED, run_script, two_at_a_time
from demo.study.costs import measure_costs
from demo.study.methods import CHOSEN, TASKS, Task, flags_of
from demo.study.outcomes import keep_outcome, outcome_file, pairs_of
from demo.study.report import draw_report, read_costs, report
from rlcf.errors import UserError
from rlcf.run.files import write_atomically
from rlcf.run.parser import Parser

STEPS = ("train", "run", "cost", "report")
KINDS = ("reward", "student")  # the longer training first


def models_of(output: Path, pair: int) -> tuple[str, str]:
    """A pair's student and reward model. Raises UserError for a pair that was not trained."""
    if not pair:
        return SHIPPED
    folders = [output / "models" / f"{kind}-{pair}" for kind in ("student", "reward")]
    missing = next((f for f in folders if not (f / "open_clip_model.safetensors").is_file()), None)
    if missing is not None:
        raise UserError(f"there is no model {missing}; train it: python -m demo.study train --pairs {pair}")
    return str(folders[0]), str(folders[1])


def train_pairs(output: Path, pairs: Sequence[int], steps: int | None, compiled: bool) -> None:
    """Train the student and the reward model of each pair, from seeds of its own, two models at a time."""
    with two_at_a_time() as pool:
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


def run_method(place: Path, kept: Path, task: Task, pair: int, models: tuple[str, str], name: str) -> str:
    """One method with one pair on all styles, as the task's script does it, unless its outcome is there.

    place: holds the pictures, and gets the run; kept: gets the outcome. Returns the lines that were printed.
    """
    outcome = outcome_file(kept, pair, name)
    if outcome.exists():
        return ""
    folder = place / f"pair-{pair}" / name
    data = ["--data", str(place / "pictures"), "--datasets", *(f"{task.lists}:{style}" for style in task.styles)]
    flags = [*flags_of(task, name, models), "--output", str(folder), "--workers", "0"]
    printed = run_script(task.script, [*data, *flags])
    keep_outcome(folder, task, outcome)
    return "".join(f"pair {pair}, {name}: {line}\n" for line in printed.splitlines())


def write_pictures(place: Path, task: Task, seed: int) -> None:
    """Write the pictures of each style, unless they are there."""
    pictures, unfinished = place / "pictures", place / "unfinished"
    for style in task.styles:
        if not (pictures / style).is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            task.write(unfinished, style, task.size, seed)
            pictures.mkdir(parents=True, exist_ok=True)
            for made in sorted(unfinished.iterdir(), key=Path.is_dir):  # a list of pictures before its folder
                made.rename(pictures / made.name)


def run_task(output: Path, place: Path, kept: Path, task: Task, pairs: Sequence[int], names: Sequence[str]) -> None:
    """Run methods with pairs, two at a time. output: holds the models; place, kept: as for `run_method`."""
    models = {pair: models_of(output, pair) for pair in pairs}
    with two_at_a_time() as pool:
        runs = [pool.submit(run_method, place, kept, task, pair, models[pair], n) for pair in pairs for n in names]
        for run in runs:
            print(run.result(), end="", flush=True)


def cost_task(place: Path, kept: Path, task: Task, names: Sequence[str]) -> None:
    """Measure what methods cost, on one thread, and keep it beside what was measured of others."""
    import torch

    torch.set_num_threads(1)
    costs = {**read_costs(kept), **measure_costs(place, task, names)}
    kept.mkdir(parents=True, exist_ok=True)
    write_atomically(kept / "costs.json", json.dumps(costs, indent=1) + "\n")


def show_report(kept: Path, task: Task) -> None:
    """Print a task's tables, and draw its picture."""
    print(report(kept, task))
    picture = draw_report(kept, task)
    if picture is not None:
        print(f"picture: {picture}")


def main() -> None:
    for words in [sys.argv[1:]] if sys.argv[1:] else [[step] for step in STEPS]:
        do_step(words)


def do_step(words: Sequence[str]) -> None:
    """One step of the study. words: of its command line."""
    parser = Parser(description=__doc__)
    steps = parser.add_subparsers(dest="what", required=True)
    train, run, cost, told = (steps.add_parser(name) for name in STEPS)
    for step in (train, run, cost, told):
        step.add_argument("--output", type=Path, default=Path("output/study"))
    train.add_argument("--pairs", type=int, nargs="+", default=[1, 2], help="default: 1 and 2")
    train.add_argument("--steps", type=int, help="of each phase, fewer or more than the recipe's")
    train.add_argument("--compile", action="store_true", help="train faster (needs a C++ compiler)")
    for step, tasks in ((run, "the three"), (cost, "the three"), (told, "those with outcomes")):
        step.add_argument("--outcomes", type=Path, help="default: OUTPUT/outcomes")
        step.add_argument("--tasks", nargs="+", choices=[*TASKS, *CHOSEN], help=f"default: {tasks}")
        step.add_argument("--seed", type=int, help="of the pictures (default: 2002, of choices 1001)")
    run.add_argument("--pairs", type=int, nargs="+", help="0: the shipped pair (default: all of each task)")
    for step in (run, cost):
        step.add_argument("--methods", nargs="+", help="names of runs (default: all)")
    args = parser.parse_args(words)
    if args.what == "train":
        train_pairs(args.output, [pair for pair in args.pairs if pair], args.steps, args.compile)
        return
    all_tasks = {**TASKS, **CHOSEN}
    folders = {name: f"{name}-{all_tasks[name].seed if args.seed is None else args.seed}" for name in all_tasks}
    outcomes = args.outcomes or args.output / "outcomes"
    begun = [name for name in all_tasks if args.what == "report" and pairs_of(outcomes / folders[name])]
    for name in args.tasks or begun or TASKS:
        task, place, kept = all_tasks[name], args.output / folders[name], outcomes / folders[name]
        if args.what == "report":
            show_report(kept, task)
            continue
        names = args.methods or list(task.methods)
        unknown = sorted(set(names) - task.methods.keys())
        if unknown:
            raise UserError(f"--methods {unknown[0]} is no run of {name}; there are {', '.join(task.methods)}")
        write_pictures(place, task, task.seed if args.seed is None else args.seed)
        if args.what == "run":
            run_task(args.output, place, kept, task, args.pairs or task.pairs, names)
        else:
            cost_task(place, kept, task, names)
