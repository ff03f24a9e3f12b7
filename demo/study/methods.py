"""The methods that the study compares, and their settings, which were chosen on pictures of the validation seed."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from demo.world import write_classification, write_retrieval

SHIFTS = ("blur", "pixelate", "fog", "clutter", "noto")
STYLES = ("clean", *SHIFTS)


@dataclass(frozen=True)
class Task:
    """One task of the study.

    script: what runs it; write: from a folder, a style, a size and a seed, writes the style's pictures; methods: name
    of a run -> the method's title and the flags of the script; baselines: runs that gains are told over; styles: the
    first one is what the student was trained on; lists: the name of a style's dataset begins with it; size: pictures of
    a class, or scenes; pairs: of student and reward model; directions: what is measured on a dataset, each on its own.
    """

    script: str
    write: Callable[[Path, str, int, int], None]
    methods: Mapping[str, tuple[str, str]]
    baselines: tuple[str, ...]
    lists: str
    size: int
    pairs: tuple[int, ...]
    styles: tuple[str, ...] = STYLES
    directions: tuple[str, ...] = ("",)


def flags_of(task: Task, name: str, models: tuple[str, str]) -> list[str]:
    """The flags of a method's run. models: its student and its reward model."""
    student, reward = models
    own = [word.format(student=student, reward=reward) for word in shlex.split(task.methods[name][1])]
    return ["--student", student, "--reward", reward, *own, "--device", "cpu"]


def _write_singles(folder: Path, style: str, size: int, seed: int) -> None:
    write_classification(folder / style, style, size, seed)


VIEWS = "--views 12 --selection 0.5"
TOWER = f"{VIEWS} --tune image-encoder --lr 1e-4 --batchnorm frozen"
PROMPT = f"{VIEWS} --tune prompt --images-at-once 8"
ANCHORED = "--candidates both --learn-from-centre --kl-weight 0.1"
ANCHORED_TOWER = f"--method rlcf {TOWER} {ANCHORED} --steps 5"
ANCHORED_PROMPT = f"--method rlcf {PROMPT} {ANCHORED} --lr 7e-3 --steps 5"
CLASSIFICATION = Task(
    script="classification",
    write=_write_singles,
    baselines=("zeroshot", "kd", "rlcf", "reward"),
    lists="folder",
    size=5,
    pairs=(0, 1, 2),
    methods={
        "zeroshot": ("zero-shot", "--method zeroshot"),
        "views": ("mean of the kept views", f"--method views {VIEWS}"),
        "views-features": ("mean feature of the kept views", f"--method views {VIEWS} --pool features"),
        "zero": ("ZERO", f"--method zero {VIEWS}"),
        "mta": ("MTA", f"--method mta {VIEWS}"),
        "tda": ("TDA", f"--method tda {VIEWS}"),
        "tpt": ("TPT, prompt", f"--method tpt {PROMPT} --steps 1 --lr 5e-3"),
        "ctpt": ("C-TPT, prompt", f"--method ctpt {PROMPT} --steps 1 --lr 5e-3"),
        "kd": ("KD, image encoder", f"--method kd {TOWER}"),
        "rlcf-prompt": ("RLCF, prompt", f"--method rlcf {PROMPT} --lr 7e-3"),
        "rlcf": ("RLCF, image encoder", f"--method rlcf {TOWER}"),
        "grpo": ("GRPO's form, encoder", f"--method rlcf {TOWER} --clip-ratio 0.2 --baseline all --divide-by-std"),
        "rlcf-both": ("RLCF, both's candidates", f"--method rlcf {TOWER} --candidates both"),
        "anchored-prompt": ("RLCF anchored, prompt", ANCHORED_PROMPT),
        "anchored": ("RLCF anchored, encoder", ANCHORED_TOWER),
        "anchored-gate": ("RLCF anchored, gate", f"{ANCHORED_TOWER} --gate agree"),
        "anchored-product": ("RLCF anchored, times reward", f"{ANCHORED_TOWER} --answer product"),
        "zero-reward": ("ZERO, the reward votes", f"--method zero --voter reward {VIEWS}"),
        "rerank": ("reward reranks the top 3", "--method rerank --pool centre"),
        "reward": ("reward model alone", "--method reward --pool centre"),
        "reward-views": ("reward model, kept views", f"--method reward {VIEWS}"),
        "mean": ("mean of both models", "--method ensemble --pool centre --combine mean"),
        "product": ("product of both models", "--method ensemble --pool centre"),
    },
)

STEPS = "--steps 5 --lr 1e-4 --sample-k 10 --t2i-sample-k 5"
RETRIEVAL = Task(
    script="retrieval",
    write=write_retrieval,
    baselines=("zeroshot", "kd", "rlcf", "reward"),
    lists="json",
    size=100,
    pairs=(0, 1, 2),
    styles=("clean", "blur", "fog", "clutter"),
    directions=("i2t", "t2i"),
    methods={
        "zeroshot": ("zero-shot", "--method zeroshot"),
        "kd": ("KD", f"--method kd {STEPS}"),
        "rlcf": ("RLCF", f"--method rlcf {STEPS}"),
        "anchored": ("RLCF anchored", f"--method rlcf {STEPS} --candidates both --kl-weight 0.1"),
        "anchored-product": (
            "RLCF anchored, times reward",
            f"--method rlcf {STEPS} --candidates both --kl-weight 0.1 --answer product",
        ),
        "reward": ("reward model alone", "--method zeroshot --student {reward}"),
        "product": ("product of both models", "--method ensemble"),
    },
)

CAPTIONS = (
    "--checkpoint demo-clipcap --language-model demo-lm --sample-k 10 --images-at-once 8 --evaluate "
    "--evaluate-clip demo-student --evaluate-prefix '' --no-evaluate-java"
)
CAPTION_STEPS = f"{CAPTIONS} --steps 4 --lr 1e-4 --weight-decay 0"
CAPTIONING = Task(
    script="caption",
    write=write_retrieval,
    baselines=("zeroshot", "rlcf", "rerank"),
    lists="json",
    size=200,
    pairs=(0,),  # the captioner that comes along was trained with this pair's student
    styles=("clean", "blur", "fog", "clutter"),
    methods={
        "zeroshot": ("zero-shot", f"--method zeroshot {CAPTIONS}"),
        "rlcf": ("RLCF", f"--method rlcf {CAPTION_STEPS}"),
        "anchored": ("RLCF anchored", f"--method rlcf {CAPTION_STEPS} --candidates both"),
        "rerank": ("reward reranks the 10 captions", f"--method rerank {CAPTIONS}"),
    },
)
TASKS = {"classification": CLASSIFICATION, "retrieval": RETRIEVAL, "captioning": CAPTIONING}
