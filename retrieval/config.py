"""Settings of a retrieval run, and which of them exclude each other."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from retrieval.datasets import DIRECTIONS, NAMES
from retrieval.methods import METHODS, Method
from rlcf.errors import UserError
from rlcf.run.config import PY, Config, option


@dataclass
class RetrievalConfig(Config):
    """Settings of a retrieval run."""

    presets: ClassVar[Path] = Path(__file__).parent / "configs"

    datasets: list[str] = option(["coco"], f"one or more of {' '.join(NAMES)}", group="data", may_change=True)
    save_logits: bool = option(False, "keep the logits before and after in logits.safetensors", group="data")

    method: str = option("rlcf", "zeroshot, or what adapts", choices=tuple(METHODS), group="method")
    direction: str = option(
        "both", "images that look for texts, texts that look for images", choices=(*DIRECTIONS, "both"), group="method"
    )
    tune: str = option(
        "encoder",
        "the query's tower (i2t: image, t2i: text), or its normalisation layers only",
        choices=("encoder", "norm"),
        group="method",
    )
    tune_embeddings: bool = option(
        False, "t2i: also tune the token embeddings and the logit scale, as published", group="method"
    )
    clean_text: bool = option(False, "clean texts as published: lower case, no marks, 50 words", group="method")
    t2i_sample_k: int | None = option(None, "K of t2i, where it is another", at_least=1, group="adaptation")

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        if self.skip_bad_images and self.direction != "i2t":
            raise UserError(
                "--skip-bad-images is for --direction i2t: t2i searches every image; take a bad one out of the list"
            )
        if self.tune_embeddings and (self.direction == "i2t" or self.tune == "norm"):
            raise UserError("--tune-embeddings is for --tune encoder and --direction t2i or both")
        if self.momentum and not self.how.adapts:
            raise UserError(f"--momentum is for a method that adapts weights; {self.method} does not")
        function = next((name for name in self.reward if name.startswith(PY)), None)
        if function is not None and self.asks_rewards and self.direction != "i2t":
            raise UserError(f"--reward {function} scores an image's texts; use --direction i2t, or give a CLIP")

    @property
    def how(self) -> Method:
        """The method itself."""
        return METHODS[self.method]

    @property
    def asks_rewards(self) -> bool:
        """True for a method that asks the reward models."""
        return self.how.asks_rewards

    @property
    def needs_logits(self) -> bool:
        """True for a method that asks the reward models for logits over the whole gallery."""
        return self.how.needs_logits

    @property
    def one_way(self) -> "list[RetrievalConfig]":
        """The settings of each direction on its own."""
        k = {"i2t": self.sample_k, "t2i": self.t2i_sample_k or self.sample_k}
        return [replace(self, direction=d, sample_k=k[d]) for d in DIRECTIONS if self.direction in (d, "both")]
