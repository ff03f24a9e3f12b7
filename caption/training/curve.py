"""The loss curve of a training: loss.json, and loss.png."""

import json
from pathlib import Path
from typing import Any

from rlcf.run.files import replacing, write_atomically

History = dict[str, list[list[float]]]
"""train, validation: [step, loss in nats a token] pairs."""


def write_curve(folder: Path, history: History) -> None:
    write_atomically(folder / "loss.json", json.dumps(history) + "\n")
    from matplotlib.figure import Figure  # slow to import, and needed once an epoch only

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes: Any = figure.subplots()
    for name, points in history.items():
        if points:
            steps, losses = zip(*points, strict=True)
            axes.plot(steps, losses, label=name, marker="o" if name == "validation" else None, markersize=3)
    axes.set(xlabel="step", ylabel="loss, nats a token")
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(folder / "loss.png") as temporary:
        figure.savefig(temporary, format="png", dpi=120)
