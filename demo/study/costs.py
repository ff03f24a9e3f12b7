"""Measures the cost of a method for one image: milliseconds, and forward and backward passes of the models."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from demo.runs import SHIPPED, read_records, run_script
from demo.study.methods import Task, flags_of
from rlcf.clip.backbone import Backbone
from rlcf.clip.passes import Passes
from rlcf.inputs.images import read_image
from rlcf.run.config import parse_config
from rlcf.run.setup import load_models

IMAGES, ROUNDS = 6, 5
"""Images of each style that are timed in a round. In each round all methods have their turn, to meet the same load."""
COUNTED = 4
"""Images of each style whose passes are counted."""


def measure_costs(place: Path, task: Task, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Method -> the milliseconds an image of each round, and its passes. On a few pictures of each style.

    place: holds the pictures; the runs that are timed are removed.
    """
    data = ["--data", str(place / "pictures"), "--datasets", *(f"{task.lists}:{style}" for style in task.styles)]
    timed = place / "timed"
    costs: dict[str, dict[str, Any]] = {name: {"milliseconds": []} for name in names}
    for _, name in tqdm([(turn, name) for turn in range(ROUNDS) for name in names], desc=f"costs, {task.script}"):
        shutil.rmtree(timed, ignore_errors=True)
        flags = [*flags_of(task, name, SHIPPED), "--limit", str(IMAGES), "--workers", "0", "--output", str(timed)]
        run_script(task.script, [*data, *flags])
        datasets = [file.parent.name for file in timed.glob("*/records.jsonl")]
        seconds = [record["seconds"] for dataset in datasets for record in read_records(timed, dataset)]
        costs[name]["milliseconds"].append(1000 * sum(seconds) / len(seconds))
    shutil.rmtree(timed)
    return {
        name: cost | passes_of(task, place / "pictures", flags_of(task, name, SHIPPED)) for name, cost in costs.items()
    }


def passes_of(task: Task, pictures: Path, flags: list[str]) -> dict[str, float]:
    """Passes an image, the mean over a few: of the student's towers, backward as well, and of the reward model's.

    What a run computes once for all images is left out.
    Empty for a task other than classification, whose methods differ in little else.
    """
    if task.script != "classification":
        return {}
    from classification import Classifier
    from classification.config import ClassificationConfig

    config = parse_config(ClassificationConfig, flags, "", "")
    models = load_models(config, torch.device("cpu"), "fp32")
    names = sorted(place.name for place in (pictures / task.styles[0]).iterdir())
    classifier = Classifier.of(config, models, names)
    files = [min((pictures / style / name).iterdir()) for style in task.styles for name in names[:COUNTED]]
    group = [(index, classifier.views(read_image(file), index)) for index, file in enumerate(files)]
    student, reward = Passes(), Passes()
    with ExitStack() as stack:
        stack.enter_context(student.counting(models.student))
        for clip in models.rewards:
            if isinstance(clip, Backbone):
                stack.enter_context(reward.counting(clip))
        classifier.adapt(group[: config.images_at_once])  # makes what a run makes once
        student.reset()
        reward.reset()
        for start in range(0, len(files), config.images_at_once):
            classifier.adapt(group[start : start + config.images_at_once])
    counted = {f"student_{name}": value / len(files) for name, value in vars(student).items()}
    return counted | {f"reward_{name}": value / len(files) for name, value in vars(reward).items()}
