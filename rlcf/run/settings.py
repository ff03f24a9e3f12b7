"""The settings that the tasks share, and which of them exclude each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlcf.errors import UserError
from rlcf.run.config import (
    Settings,
    adaptation_option,
    beyond_option,
    dashed,
    data_option,
    method_option,
    model_option,
    option,
)
from rlcf.run.presence import require_clip

PY = "py:"
"""The first characters of a reward function's name, py:package.module:function."""


@dataclass
class Config(Settings):
    """The settings of every task."""

    methods: ClassVar[Mapping[str, Any]] = {}
    """The task's methods by their names.

    Each tells at least `told` (a line of help), `adapts`, `asks_rewards`, `needs_logits` and `settings`: the names of
    those settings that only some methods have and this one does.
    """

    seed: int = option(0, "with a sample's index decides its views; also the order of the samples", at_least=0)
    limit: int | None = data_option(
        None,
        "use only the first N samples of each dataset's shuffled order; the same run goes on with more",
        at_least=1,
        may_change=True,
    )
    workers: int = data_option(
        2, "processes that read images and make views; 0: none but this one", at_least=0, may_change=True
    )
    skip_bad_images: bool = data_option(
        False, "record an image that cannot be read and go on, instead of stopping", may_change=True
    )

    image_reading: str = data_option(
        "auto",
        "upright: as people see pictures, turned by their EXIF data, deep ones scaled to 8 bits, on white where they "
        "are transparent; published: by PIL's conversion to RGB alone; auto: published for the datasets of the paper",
        choices=("auto", "upright", "published"),
    )
    hf_config: str | None = data_option(None, "of an hf dataset that has several parts, the name of one")
    image_column: str | None = data_option(None, "of an hf dataset that has several columns of images")

    student: str = model_option(
        "ViT-B/16", "the CLIP that adapts: OpenAI or open_clip name, hf-hub:..., path", path=True
    )
    reward: list[str] = model_option(
        ["ViT-L/14"],
        "the reward CLIP, or several for an ensemble; a function of your own: py:package.module:function",
        path=True,
    )
    reward_weights: list[float] | None = model_option(
        None, "weight of each reward model in an ensemble (normalised); equal when not given"
    )
    round_reward_weights: bool = model_option(False, "round the weights to two digits, as published")
    clip_root: str | None = model_option(None, "folder with OpenAI's files (ViT-B-16.pt, ...)", path=True)

    method: str = method_option("rlcf", "what adapts")  # each task names its methods

    steps: int = adaptation_option(3, "adaptation steps per sample", at_least=1)
    lr: float = adaptation_option(1e-5, "learning rate of AdamW", above=0)
    weight_decay: float = adaptation_option(5e-4, "weight decay of AdamW", at_least=0)
    eps: float = adaptation_option(1e-8, "epsilon of AdamW", above=0)
    sample_k: int = adaptation_option(3, "K: answers that are sampled and rewarded", at_least=1)
    clipscore_weight: float = adaptation_option(2.5, "w in CLIPScore = w * max(cos, 0)", above=0)
    baseline: str = adaptation_option(
        "answers",
        "mean score that is subtracted: over the K answers of a view, over all views and answers, or none",
        choices=("answers", "all", "none"),
    )
    divide_by_std: bool = adaptation_option(False, "divide advantages by their standard deviation")
    momentum: bool = adaptation_option(False, "let adapted weights flow into a momentum buffer")
    momentum_decay: float = adaptation_option(0.9998, "share of the buffer that a sample keeps", at_least=0, at_most=1)
    momentum_every: int = adaptation_option(64, "samples between updates of the starting weights", at_least=1)
    momentum_weight: float = adaptation_option(
        1.0, "share of the buffer in the new starting weights", at_least=0, at_most=1
    )

    candidates: str = beyond_option(
        "student",
        "rlcf: the answers that are sampled: the student's K likeliest, or these and the reward model's K best",
        choices=("student", "both"),
    )
    kl_weight: float = beyond_option(
        0.0, "weight of KL(adapted || starting prediction), which holds the student near its own answer", at_least=0
    )

    stop_when_settled: float = beyond_option(
        0.0,
        "rlcf: bound > 0: an episode ends when a step, the second or a later one, sampled the answers of the step "
        "before and every advantage is below the bound",
        at_least=0,
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        weights = self.reward_weights
        if weights is not None and len(weights) != len(self.reward):
            raise UserError(f"--reward-weights has {len(weights)} numbers for {len(self.reward)} reward models")
        if weights is not None and min(weights) <= 0:
            raise UserError("--reward-weights must be above 0; leave out a reward model that shall not count")
        if self.divide_by_std and self.baseline == "none":
            raise UserError("--divide-by-std needs a mean to start from; use --baseline answers or all")
        function = next((name for name in self.reward if name.startswith(PY)), None)
        if function is not None and self.logits_flag:
            raise UserError(
                f"--reward {function} gives scores, not logits, which {self.logits_flag} needs; give a CLIP"
            )
        if self.momentum and not self.how.adapts:
            raise UserError(f"--momentum is for a method that adapts weights; {self.method} does not")
        for name in sorted({name for method in self.methods.values() for name in method.settings}):
            if name not in self.how.settings and getattr(self, name) != getattr(type(self)(), name):
                users = " or ".join(other for other, method in self.methods.items() if name in method.settings)
                raise UserError(f"--{dashed(name)} is for --method {users}")
        if self.stop_when_settled and self.steps < 3:
            raise UserError("--stop-when-settled needs three --steps or more: no episode ends before its second one")

    def require_files(self) -> None:
        """Raises UserError for a CLIP that is named by a path and is not there."""
        require_clip("--student", self.student)
        for name in self.reward if self.asks_rewards else ():
            if not name.startswith(PY):
                require_clip("--reward", name)

    def reads_as_published(self, published: bool) -> bool:
        """True where images are read as the published code reads them. published: of a dataset that it reads so."""
        return published if self.image_reading == "auto" else self.image_reading == "published"

    @property
    def how(self) -> Any:
        """The method itself."""
        return self.methods[self.method]

    @property
    def asks_rewards(self) -> bool:
        """True for a method that asks the reward models."""
        return bool(self.how.asks_rewards)

    @property
    def logits_flag(self) -> str:
        """The flag that asks the reward models for logits over all answers, with its value; empty where none does."""
        return f"--method {self.method}" if self.how.needs_logits else ""

    @property
    def remembers(self) -> bool:
        """True for a method that carries something from one sample to the next."""
        return self.momentum


@dataclass
class ListConfig(Config):
    """The settings of a task whose answers stand in a fixed list: classes, or a gallery."""

    save_logits: bool = data_option(False, "keep the logits before and after in logits.safetensors")

    gate: str = beyond_option(
        "none",
        "agree: no episode where student and reward model agree on what the student would learn from",
        choices=("none", "agree"),
    )
    answer: str = beyond_option(
        "adapted",
        "the adapted student's answer, or the product or the mean of its probabilities and the reward model's",
        choices=("adapted", "product", "mean"),
    )

    @property
    def logits_flag(self) -> str:
        """The flag that asks the reward models for logits over the whole list, with its value."""
        plain = {"candidates": "student", "gate": "none", "answer": "adapted"}
        further = (f"--{name} {getattr(self, name)}" for name, value in plain.items() if getattr(self, name) != value)
        return super().logits_flag or next(further, "")
