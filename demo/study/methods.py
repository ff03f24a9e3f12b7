"""The methods that the study compares, and their settings, which were chosen on pictures of the validation seed."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from demo.world import TEST_SEED, VALIDATION_SEED, write_classification, write_retrieval

SHIFTS = ("blur", "pixelate", "fog", "clutter", "noto")
STYLES = ("clean", *SHIFTS)


@dataclass(frozen=True)
class Task:
    """One task of the study.

    script: what runs it; write: from a folder, a style, a size and a seed, writes the style's pictures; methods: name
    of a run -> the method's title and the flags of the script; baselines: runs that gains are told over; styles: the
    first one is what the student was trained on; lists: the name of a style's dataset begins with it; size: pictures of
    a class, or scenes; pairs: of student and reward model; directions: what is measured on a dataset, each on its own;
    seed: of the pictures.
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
    seed: int = TEST_SEED


def flags_of(task: Task, name: str, models: tuple[str, str]) -> list[str]:
    """The flags of a method's run. models: its student and its reward model."""
    student, reward = models
    own = [word.format(student=student, reward=reward) for word in shlex.split(task.methods[name][1])]
    return ["--student", student, "--reward", reward, *own, "--device", "cpu"]


def _write_singles(folder: Path, style: str, size: int, seed: int) -> None:
    write_classification(folder / style, style, size, seed)


VIEWS = "--views 12 --selection 0.5"
TOWER = f"{VIEWS} --tune image-encoder --batchnorm frozen"
PROMPT = f"{VIEWS} --tune prompt --images-at-once 8"
ANCHORED = "--method rlcf --candidates both --learn-from-centre"
RLCF_TOWER, RLCF_PROMPT = f"--method rlcf {TOWER} --lr 1e-4", f"--method rlcf {PROMPT} --lr 2e-2"
ANCHORED_TOWER = f"{ANCHORED} {TOWER} --kl-weight 0.1 --steps 5 --lr 2e-4"
ANCHORED_PROMPT = f"{ANCHORED} {PROMPT} --kl-weight 0.1 --steps 5 --lr 2e-2"
CLASSIFICATION = Task(
    script="classification",
    write=_write_singles,
    baselines=("zeroshot", "kd", "rlcf", "reward", "mean"),
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
        "kd": ("KD, image encoder", f"--method kd {TOWER} --lr 2e-4"),
        "rlcf-prompt": ("RLCF, prompt", RLCF_PROMPT),
        "rlcf": ("RLCF, image encoder", RLCF_TOWER),
        "grpo": ("GRPO's form, encoder", f"{RLCF_TOWER} --clip-ratio 0.2 --baseline all --divide-by-std"),
        "rlcf-both": ("RLCF, both's candidates", f"{RLCF_TOWER} --candidates both"),
        "rlcf-centre": ("RLCF, also on the centre crop", f"{RLCF_TOWER} --learn-from-centre"),
        "rlcf-kl": ("RLCF, KL 0.1", f"{RLCF_TOWER} --kl-weight 0.1"),
        "anchored-prompt": ("anchored prompt, student alone", ANCHORED_PROMPT),
        "anchored-prompt-mean": ("RLCF anchored, prompt", f"{ANCHORED_PROMPT} --answer mean"),
        "anchored": ("anchored encoder, student alone", ANCHORED_TOWER),
        "anchored-gate": ("anchored encoder, student, gate", f"{ANCHORED_TOWER} --gate agree"),
        "anchored-product": ("anchored encoder, product", f"{ANCHORED_TOWER} --answer product"),
        "anchored-mean": ("RLCF anchored, encoder", f"{ANCHORED_TOWER} --answer mean"),
        "zero-reward": ("ZERO, the reward votes", f"--method zero --voter reward {VIEWS}"),
        "rerank": ("reward reranks the top 3", "--method rerank --pool centre"),
        "reward": ("reward model alone", "--method reward --pool centre"),
        "reward-views": ("reward model, kept views", f"--method reward {VIEWS}"),
        "mean": ("mean of both models", "--method ensemble --pool centre --combine mean"),
        "product": ("product of both models", "--method ensemble --pool centre"),
    },
)

CHOICES = replace(
    CLASSIFICATION,
    baselines=("zeroshot", "reward"),
    size=1,
    pairs=(0,),
    seed=VALIDATION_SEED,
    methods={
        "zeroshot": CLASSIFICATION.methods["zeroshot"],
        "reward": CLASSIFICATION.methods["reward"],
        "product": CLASSIFICATION.methods["product"],
        "kd-5e-5": ("KD, lr 5e-5", f"--method kd {TOWER} --lr 5e-5"),
        "kd-1e-4": ("KD, lr 1e-4", f"--method kd {TOWER} --lr 1e-4"),
        "kd-2e-4": ("KD, lr 2e-4", f"--method kd {TOWER} --lr 2e-4"),
        "kd-centre": ("KD, lr 1e-4, centre crop", f"--method kd --learn-from-centre {TOWER} --lr 1e-4"),
        "rlcf-1e-4": ("RLCF, encoder, lr 1e-4", RLCF_TOWER),
        "rlcf-2e-4": ("RLCF, encoder, lr 2e-4", f"{RLCF_TOWER} --lr 2e-4"),
        "rlcf-7e-3": ("RLCF, prompt, lr 7e-3", f"{RLCF_PROMPT} --lr 7e-3"),
        "rlcf-2e-2": ("RLCF, prompt, lr 2e-2", RLCF_PROMPT),
        "anchored-1e-4": ("anchored, encoder, lr 1e-4", f"{ANCHORED_TOWER} --lr 1e-4"),
        "anchored-2e-4": ("anchored, encoder, lr 2e-4", ANCHORED_TOWER),
        "anchored-4e-4": ("anchored, encoder, lr 4e-4", f"{ANCHORED_TOWER} --lr 4e-4"),
        "anchored-steps-8": ("anchored, lr 2e-4, 8 steps", f"{ANCHORED_TOWER} --steps 8"),
        "anchored-k-5": ("anchored, lr 2e-4, K 5", f"{ANCHORED_TOWER} --sample-k 5"),
        "anchored-kl-0.3": ("anchored, lr 2e-4, KL 0.3", f"{ANCHORED_TOWER} --kl-weight 0.3"),
        "anchored-7e-3": ("anchored, prompt, lr 7e-3", f"{ANCHORED_PROMPT} --lr 7e-3"),
        "anchored-2e-2": ("anchored, prompt, lr 2e-2", ANCHORED_PROMPT),
        "anchored-4e-2": ("anchored, prompt, lr 4e-2", f"{ANCHORED_PROMPT} --lr 4e-2"),
        "anchored-product": ("anchored, lr 2e-4, product", f"{ANCHORED_TOWER} --answer product"),
        "anchored-mean": ("anchored, lr 2e-4, mean", f"{ANCHORED_TOWER} --answer mean"),
        "anchored-prompt-mean": ("prompt, lr 2e-2, mean", f"{ANCHORED_PROMPT} --answer mean"),
    },
)

STEPS = "--steps 5 --lr 1e-4 --sample-k 10 --t2i-sample-k 5"
ANCHORED_RETRIEVAL = f"--method rlcf {STEPS} --candidates both --kl-weight 0.1"
RETRIEVAL = Task(
    script="retrieval",
    write=write_retrieval,
    baselines=("zeroshot", "kd", "rlcf", "reward", "product"),
    lists="json",
    size=100,
    pairs=(0, 1, 2),
    styles=("clean", "blur", "fog", "clutter"),
    directions=("i2t", "t2i"),
    methods={
        "zeroshot": ("zero-shot", "--method zeroshot"),
        "kd": ("KD", f"--method kd {STEPS}"),
        "rlcf": ("RLCF", f"--method rlcf {STEPS}"),
        "anchored": ("anchored, student alone", ANCHORED_RETRIEVAL),
        "anchored-product": ("anchored, product", f"{ANCHORED_RETRIEVAL} --answer product"),
        "anchored-mean": ("RLCF anchored", f"{ANCHORED_RETRIEVAL} --answer mean"),
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
        "rlcf-8": ("RLCF, 8 steps", f"--method rlcf {CAPTION_STEPS} --steps 8"),
        "rlcf-both": ("RLCF, both's candidates", f"--method rlcf {CAPTION_STEPS} --candidates both"),
        "anchored": ("RLCF anchored", f"--method rlcf {CAPTION_STEPS} --steps 8 --kl-weight 0.1"),
        "rerank": ("reward reranks the 10 captions", f"--method rerank {CAPTIONS}"),
    },
)
TASKS = {"classification": CLASSIFICATION, "retrieval": RETRIEVAL, "captioning": CAPTIONING}
CHOSEN = {"choices": CHOICES}
"""Name -> the runs by which settings were chosen, on pictures of the validation seed."""
