"""Settings of a retrieval run, and which of them exclude each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from retrieval.datasets import DIRECTIONS, NAMES
from retrieval.methods import METHODS, Method
from rlcf.errors import UserError
from rlcf.run.config import adaptation_option, data_option, method_option
from rlcf.run.settings import PY, ListConfig

GALLERY = {"i2t": "texts", "t2i": "images"}
"""What a query of each direction searches."""


@dataclass
class RetrievalConfig(ListConfig):
    """Settings of a retrieval run."""

    presets: ClassVar[Path] = Path(__file__).parent / "configs"
    methods: ClassVar[Mapping[str, Method]] = METHODS

    datasets: list[str] = data_option(["coco"], f"one or more of {' '.join(NAMES)}", may_change=True)

    caption_column: str | None = data_option(None, "of an hf dataset that has several columns of texts")

    method: str = method_option("rlcf", "one of those above", choices=METHODS.keys())
    direction: str = method_option(
        "both", "images that look for texts, texts that look for images", choices=(*DIRECTIONS, "both")
    )
    tune: str = method_option(
        "encoder",
        "the query's tower (i2t: image, t2i: text), or its normalisation layers only",
        choices=("encoder", "norm"),
    )
    tune_embeddings: bool = method_option(
        False, "t2i: also tune the token embeddings and the logit scale, as published"
    )
    clean_text: bool = method_option(False, "clean texts as published: lower case, no marks, 50 words")
    t2i_sample_k: int | None = adaptation_option(None, "K of t2i, where it is another", at_least=1)

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        if self.skip_bad_images and self.direction != "i2t":
            raise UserError(
                "--skip-bad-images is for --direction i2t: t2i searches every image; take a bad one out of the list"
            )
        if self.tune_embeddings and (self.direction == "i2t" or self.tune == "norm"):
            raise UserError("--tune-embeddings is for --tune encoder and --direction t2i or both")
        function = next((name for name in self.reward if name.startswith(PY)), None)
        if function is not None and self.asks_rewards and self.direction != "i2t":
            raise UserError(f"--reward {function} scores an image's texts; use --direction i2t, or give a CLIP")

    def check_gallery(self, size: int, called: str) -> None:
        """Raises UserError for an empty gallery, and when more answers are to be sampled than it has places."""
        kind = GALLERY[self.direction]
        if size == 0:
            raise UserError(f"{called} is empty; it needs one of the {kind} or more")
        if self.how.samples_answers and self.sample_k > size:
            of = f"--sample-k {self.sample_k} of {self.direction}"
            raise UserError(f"{of} exceeds the {size} {kind} of {called}; give {size} or fewer")

    @property
    def takes_memory(self) -> tuple[str, ...]:
        """Names of the settings that take less memory when they are lower, the best to lower first."""
        return ("t2i_sample_k",) if self.direction == "t2i" and self.t2i_sample_k else ("sample_k",)

    @property
    def one_way(self) -> "list[RetrievalConfig]":
        """The settings of each direction on its own."""
        k = {"i2t": self.sample_k, "t2i": self.t2i_sample_k or self.sample_k}
        return [replace(self, direction=d, sample_k=k[d]) for d in DIRECTIONS if self.direction in (d, "both")]
