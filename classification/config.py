"""Settings of a classification run, and which of them exclude each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from classification.datasets import NAMES
from classification.methods import METHODS, Method
from classification.prompts import split_prompt
from rlcf.data.command import own_command
from rlcf.errors import UserError
from rlcf.run.config import adaptation_option, beyond_option, data_option, method_option, option, speed_option
from rlcf.run.presence import require_path
from rlcf.run.settings import ListConfig

prompt_option = partial(option, group="prompt")

LEARNING_RATES = {"prompt": 7e-3, "image-encoder": 1e-5, "norm": 1e-5}
"""Value of --tune -> the published learning rate."""


@dataclass
class ClassificationConfig(ListConfig):
    """Settings of a classification run."""

    presets: ClassVar[Path] = Path(__file__).parent / "configs"
    methods: ClassVar[Mapping[str, Method]] = METHODS

    datasets: list[str] = data_option(["I"], f"one or more of {' '.join(NAMES)} folder:SUB images:SUB", may_change=True)
    corruption: str = data_option("gaussian_noise", "of dataset C")
    severity: int = data_option(5, "of dataset C, 1 to 5", at_least=1, at_most=5)
    classnames: str | None = data_option(
        None,
        "file of class names for folder, hf and images datasets: lines folder<TAB>name, JSON {folder: name}, or a name "
        "a line, of folders in their sorted order",
        path=True,
    )
    label_column: str | None = data_option(None, "of an hf dataset that has several columns of labels")

    method: str = method_option("rlcf", "one of those above", choices=METHODS.keys())
    lr: float = adaptation_option(
        None, "learning rate of AdamW (default: 7e-3 for the prompt, 1e-5 for the image tower and its layers)", above=0
    )
    tune: str = method_option(
        "image-encoder",
        "the context of the class prompts, the image tower, or its normalisation layers only",
        choices=("prompt", "image-encoder", "norm"),
    )
    views: int = method_option(64, "views of an image: its centre crop and random ones", at_least=1)
    selection: float = method_option(
        0.1, "share of the views, the most confident ones, that is learnt from", above=0, at_most=1
    )
    augment: str = method_option("crop", "how views are made", choices=("crop", "augmix", "hard"))
    entropy_weight: float = method_option(0.0, "weight of TPT's entropy beside the method's own objective", at_least=0)
    dispersion_weight: float = method_option(
        20.0, "ctpt: lambda, weight of the dispersion of the class features", at_least=0
    )
    learn_from_centre: bool = beyond_option(False, "the centre crop is always among the views that are learnt from")
    clip_ratio: float = beyond_option(
        0.0,
        "rlcf: epsilon > 0: GRPO's clipped ratio, with the answers that were sampled before the first step",
        at_least=0,
    )
    voter: str = method_option(
        "student", "zero: the model that votes on the views that the student keeps", choices=("student", "reward")
    )
    published_ties: bool = method_option(
        False, "zero: as published where no other view votes for a tied class: any class but some may win"
    )
    pool: str = method_option(
        "probabilities",
        "views, reward, ensemble, rerank: the mean prediction of the kept views, of their mean feature, or the centre "
        "crop's alone",
        choices=("probabilities", "features", "centre"),
    )
    combine: str = method_option(
        "product", "ensemble: the product or the mean of the two models' probabilities", choices=("product", "mean")
    )
    mta_lambda_y: float = method_option(0.2, "mta: temperature of the inlierness scores", above=0)
    mta_lambda_q: float = method_option(4.0, "mta: weight of the views' agreement", at_least=0)
    atkd_scale: str = method_option(
        "std",
        "what ATKD divides logits by: their standard deviation, or their mean, as in the published runs",
        choices=("std", "mean"),
    )
    batchnorm: str = method_option(
        "batch",
        "statistics of a tuned ResNet's BatchNorm: the views' while tuning and the stored ones for the answer, the "
        "stored ones throughout, or as the published norm tuning",
        choices=("batch", "frozen", "published-norm"),
    )
    bn_prior: float = method_option(
        0.0, "N > 0: while tuning, mix a ResNet's stored statistics with the views', N to 1", at_least=0
    )

    class_chunk: int | None = speed_option(
        None,
        "prompt tuning: classes whose text graph is in memory at a time; as many as an eighth of the free memory holds "
        "when not given",
        at_least=1,
        may_change=True,
    )
    images_at_once: int = speed_option(
        1,
        "images that are adapted to at once, prompt and norm tuning: the same answers up to rounding, faster where "
        "small towers leave a GPU idle",
        at_least=1,
    )
    select_precision: str = speed_option(
        "same",
        "precision in which the views are ranked: the run's; or first bf16, then the run's for the centre crop and the "
        "best, twice as many as are kept",
        choices=("same", "bf16"),
    )
    views_on_device: bool = speed_option(False, "make the views on the device that adapts, crop only")
    draft_jpeg: bool = speed_option(False, "decode a JPEG much larger than the views at a half, a quarter or an eighth")

    prompt: str = prompt_option(
        "a photo of a", "words of the class prompts, also of the reward models'; with {} where the class name stands"
    )
    class_position: str = prompt_option(
        "end", "where the class name stands in the prompt", choices=("end", "middle", "front")
    )
    context: str = prompt_option(
        "words", "what prompt tuning starts from: words, random, or a CoOp checkpoint (file or folder)", path=True
    )
    n_ctx: int = prompt_option(4, "number of random context tokens", at_least=1)
    templates: str = prompt_option(
        "single", "zero-shot and image-tower prompts: one, or 80", choices=("single", "imagenet80")
    )

    def __post_init__(self) -> None:
        """Fill in the learning rate, and read a prompt with {} in it.

        "a photo of a {}." is "a photo of a" with the class name at the end.
        """
        if self.lr is None:
            self.lr = LEARNING_RATES[self.tune]
        if "{" in self.prompt:
            self.prompt, self.class_position = split_prompt(self.prompt, self.class_position)

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        adapts, tunes_prompt = self.how.adapts, self.tune == "prompt" and self.how.adapts
        if self.templates != "single" and tunes_prompt:
            raise UserError("--templates imagenet80 has no prompt to tune; use --tune image-encoder or norm")
        if self.context != "words" and self.tune != "prompt":
            raise UserError(f"--context {self.context} is for --tune prompt")
        if not adapts and self.context != "words" and self.templates != "single":
            raise UserError(f"--context {self.context} and --templates {self.templates} exclude each other")
        if self.how.moves_classes and self.tune != "prompt":
            raise UserError(f"--method {self.method} moves the class features; use --tune prompt")
        if self.clip_ratio and self.steps == 1:
            raise UserError("--clip-ratio needs two --steps or more: at the first one the ratio is 1")
        if self.method == "mta" and self.views < 5:
            raise UserError(
                "--method mta needs five --views or more: it asks for each view's nearest ones, 30% of the others"
            )
        if self.bn_prior > 0 and self.tune == "prompt":
            raise UserError("--bn-prior is for --tune image-encoder or norm")
        if self.bn_prior > 0 and self.batchnorm != "batch":
            raise UserError(f"--bn-prior and --batchnorm {self.batchnorm} exclude each other")
        if self.batchnorm == "published-norm" and self.tune != "norm":
            raise UserError("--batchnorm published-norm is for --tune norm")
        if self.kept < 1:
            raise UserError(f"--selection {self.selection:g} of --views {self.views} keeps no view; raise one of them")
        if self.images_at_once > 1 and (not adapts or self.tune == "image-encoder"):
            raise UserError("--images-at-once is for a method that tunes the prompt or the normalisation layers; use 1")
        if self.images_at_once > 1 and self.remembers:
            raise UserError("--momentum carries weights from sample to sample; use --images-at-once 1")
        if self.class_chunk is not None and not tunes_prompt:
            raise UserError("--class-chunk is for a method that tunes the prompt; use --tune prompt")
        if self.views_on_device and self.augment != "crop":
            raise UserError(f"--views-on-device makes crops only; use --augment crop, not {self.augment}")
        if self.select_precision == "bf16" and (not adapts or self.precision == "bf16"):
            raise UserError("--select-precision bf16 spares a more precise method's ranking of views; leave it out")

    def check_classes(self, count: int, called: str) -> None:
        """Raises UserError when there is no class, or when more answers are to be sampled than there are classes."""
        if not count:
            raise UserError("a list of class names is empty; it needs one or more")
        if self.how.samples_answers and self.sample_k > count:
            classes = f"{count} classes of {called}; give {count} or fewer"
            raise UserError(f"--sample-k {self.sample_k} exceeds the {classes}")

    def require_files(self) -> None:
        """Raises UserError for a model, a context or class names whose file is missing, with what brings it."""
        super().require_files()
        if self.tune == "prompt" and self.context not in ("words", "random"):
            remedy = f"'{own_command()} get coop' tells where it is to be had"
            require_path("--context", self.context, "CoOp checkpoint", remedy)
        if self.classnames is not None:
            require_path("--classnames", self.classnames, "file of class names", "it holds one name a line")

    @property
    def asks_rewards(self) -> bool:
        """True for a method that asks the reward models."""
        return self.how.asks_rewards or self.voter == "reward"

    @property
    def logits_flag(self) -> str:
        """The flag that asks the reward models for logits over all classes, with its value."""
        return super().logits_flag or ("--voter reward" if self.voter == "reward" else "")

    @property
    def remembers(self) -> bool:
        """True for a method that carries something from image to image."""
        return self.momentum or self.how.remembers

    @property
    def bf16_flag(self) -> str:
        """The flag that asks for bf16, with its value; empty where none does."""
        return super().bf16_flag or ("--select-precision bf16" if self.select_precision == "bf16" else "")

    @property
    def takes_memory(self) -> tuple[str, ...]:
        """Names of the settings that take less memory when they are lower, the best to lower first."""
        in_parts = ("images_at_once", "class_chunk") if self.tune == "prompt" else ("images_at_once",)
        return (*in_parts, "views") if self.uses_views else in_parts

    @property
    def uses_views(self) -> bool:
        """False where the centre crop alone is looked at."""
        return self.how.uses_views and self.pool != "centre"

    @property
    def n_views(self) -> int:
        """Number of views that the method needs."""
        return self.views if self.uses_views else 1

    @property
    def kept(self) -> int:
        """Number of views that are kept, int(views * selection) (TPT, section 3.2)."""
        return int(self.n_views * self.selection) if self.uses_views else 1
