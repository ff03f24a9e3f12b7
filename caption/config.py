"""Settings of a captioning run, and which of them exclude each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from caption.datasets import NAMES
from caption.files import MAPPER_FILE, find_checkpoint, require_language_model
from caption.methods import METHODS, Method
from rlcf.errors import UserError
from rlcf.run.config import beyond_option, data_option, method_option, model_option, option, speed_option
from rlcf.run.presence import require_clip
from rlcf.run.settings import Config
from rlcf.shipped import shipped_names

evaluation_option = partial(option, group="evaluation", may_change=True)


@dataclass
class CaptionConfig(Config):
    """Settings of a captioning run."""

    presets: ClassVar[Path] = Path(__file__).parent / "configs"
    methods: ClassVar[Mapping[str, Method]] = METHODS

    datasets: list[str] = data_option(["coco"], f"one or more of {' '.join(NAMES)} folder:SUBFOLDER", may_change=True)

    caption_column: str | None = data_option(None, "of an hf dataset that has several columns of texts")

    evaluate: bool = evaluation_option(False, "score the captions, before and after, as clipscore/main.py does")
    evaluate_clip: str = evaluation_option("ViT-B/32", "the CLIP of CLIPScore", path=True)
    evaluate_java: bool = evaluation_option(True, "METEOR and the PTB tokenizer, by Java where there is one")
    evaluate_prefix: str = evaluation_option("A photo depicts ", "what stands before a caption for it")

    checkpoint: str = model_option(
        "",
        "the captioner: a training run's folder, a file (ckpt-latest.pt as published), or one that comes along: "
        + ", ".join(shipped_names(MAPPER_FILE)),
        path=True,
    )
    language_model: str = model_option(
        "facebook/opt-125m",
        "the language model that it was trained with: Hugging Face name, folder, or one that comes along: "
        + ", ".join(shipped_names("config.json")),
        path=True,
    )

    method: str = method_option("rlcf", "one of those above", choices=METHODS.keys())
    sampling: str = method_option(
        "beam", "where the K captions come from: beam search, or draws from the nucleus", choices=("beam", "nucleus")
    )
    top_p: float = method_option(0.9, "probability of the nucleus", above=0, at_most=1)
    beams: int = method_option(5, "beams of the final caption", at_least=1)
    max_new_tokens: int = method_option(50, "longest caption, tokens", at_least=1)
    score_padding: bool = method_option(
        False, "as published, let the padding of shorter captions count as text in the loss"
    )
    candidates: str = beyond_option(
        "student",
        "rlcf: the captions that are learnt from: the captioner's K, or these and the K of the captioner before the "
        "first step",
        choices=("student", "both"),
    )
    images_at_once: int = speed_option(
        1,
        "images that are adapted to at once: the same captions up to rounding, faster with beam search, since the "
        "language model makes a token of all captions in one go; each takes five times its mapper's memory",
        at_least=1,
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        if not self.checkpoint:
            raise UserError("no captioner; give --checkpoint a training run's folder or a ckpt-latest.pt")
        if self.images_at_once > 1 and self.remembers:
            raise UserError("--momentum carries weights from sample to sample; use --images-at-once 1")
        if self.stop_when_settled and self.sampling == "nucleus":
            raise UserError("--stop-when-settled needs captions that repeat, not draws; use --sampling beam")

    def require_files(self) -> None:
        """Raises UserError for a model or a captioner that is missing, with what brings it."""
        super().require_files()
        find_checkpoint(self.checkpoint)
        require_language_model(self.language_model)
        if self.evaluate:
            require_clip("--evaluate-clip", self.evaluate_clip)

    @property
    def takes_memory(self) -> tuple[str, ...]:
        """Names of the settings that take less memory when they are lower, the best to lower first."""
        return "images_at_once", "sample_k", "beams", "max_new_tokens"
