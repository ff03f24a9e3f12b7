"""Settings of a captioning run, and which of them exclude each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from caption.datasets import NAMES
from caption.mapper import MAPPER_FILE
from caption.methods import METHODS, Method
from rlcf.errors import UserError
from rlcf.run.config import Config, option
from rlcf.shipped import shipped_names


@dataclass
class CaptionConfig(Config):
    """Settings of a captioning run."""

    presets: ClassVar[Path] = Path(__file__).parent / "configs"

    datasets: list[str] = option(
        ["coco"], f"one or more of {' '.join(NAMES)} folder:SUBFOLDER", group="data", may_change=True
    )

    evaluate: bool = option(
        False,
        "score the captions, before and after, as clipscore/main.py does",
        group="evaluation",
        may_change=True,
    )
    evaluate_clip: str = option("ViT-B/32", "the CLIP of CLIPScore", group="evaluation", may_change=True)
    evaluate_java: bool = option(
        True, "METEOR and the PTB tokenizer, by Java where there is one", group="evaluation", may_change=True
    )
    evaluate_prefix: str = option(
        "A photo depicts ", "what stands before a caption for it", group="evaluation", may_change=True
    )

    checkpoint: str = option(
        "",
        "the captioner: a training run's folder, a file (ckpt-latest.pt as published), or one that comes along: "
        + ", ".join(shipped_names(MAPPER_FILE)),
        group="models",
    )
    language_model: str = option(
        "facebook/opt-125m",
        "the language model that it was trained with: Hugging Face name, folder, or one that comes along: "
        + ", ".join(shipped_names("config.json")),
        group="models",
    )

    method: str = option("rlcf", "zeroshot, or what adapts", choices=tuple(METHODS), group="method")
    sampling: str = option(
        "beam",
        "where the K captions come from: beam search, or draws from the nucleus",
        choices=("beam", "nucleus"),
        group="method",
    )
    top_p: float = option(0.9, "probability of the nucleus", above=0, at_most=1, group="method")
    beams: int = option(5, "beams of the final caption", at_least=1, group="method")
    max_new_tokens: int = option(50, "longest caption, tokens", at_least=1, group="method")
    score_padding: bool = option(
        False, "as published, let the padding of shorter captions count as text in the loss", group="method"
    )
    images_at_once: int = option(
        1,
        "images that are adapted to at once: the same captions up to rounding, faster with beam search, since the "
        "language model makes a token of all captions in one go; each takes five times its mapper's memory",
        at_least=1,
        group="speed",
        may_change=True,
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        if not self.checkpoint:
            raise UserError("no captioner; give --checkpoint a training run's folder or a ckpt-latest.pt")
        if self.momentum and not self.how.adapts:
            raise UserError(f"--momentum is for a method that adapts weights; {self.method} does not")
        if self.images_at_once > 1 and self.remembers:
            raise UserError("--momentum carries weights from sample to sample; use --images-at-once 1")

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
        """False: captions are no fixed list over which a reward model has logits."""
        return False
