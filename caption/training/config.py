"""Settings of what trains a captioner: of caption/extract_features.py and of caption/train.py."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from caption.files import EXTRACTED_BY, require_language_model
from rlcf.errors import UserError
from rlcf.run.config import Settings, method_option, model_option, option
from rlcf.run.presence import require_clip, require_path

KIND = {"clipcap": "image", "capdec": "text"}
"""Method -> what it learns from."""

training_option = partial(option, group="training")


@dataclass
class TrainConfig(Settings):
    """Settings of a captioner's training."""

    presets: ClassVar[Path] = Path(__file__).resolve().parents[1] / "configs"

    data: str = option("", "features: a folder of caption/extract_features.py, or a published .pkl file", path=True)
    output: str = option(
        "output/captioner", "run folder: config.yaml, log.txt, loss curve, checkpoints", may_change=True, path=True
    )
    seed: int = option(0, "decides the first weights, the order of the captions, and the noise", at_least=0)
    validation: str | None = option(None, "features for the validation loss", path=True)
    validation_share: float = option(
        0.02,
        "share of the images held out for the validation loss when --validation is not given",
        at_least=0,
        at_most=0.5,
    )

    method: str = method_option("clipcap", "learn from image features, or from the captions' own", choices=tuple(KIND))
    noise: str = method_option(
        "gaussian", "CapDec's noise: normal, or uniform in a ball", choices=("gaussian", "uniform")
    )
    noise_variance: float = method_option(
        0.016, "CapDec's: variance of the normal noise; of the ball, its radius squared", at_least=0
    )
    end_token: bool = method_option(True, "learn where a caption ends; the published captioners did not")

    language_model: str = model_option(
        "facebook/opt-125m", "frozen language model: Hugging Face name, folder, or one that comes along", path=True
    )
    mapper: str = model_option("transformer", "kind of mapper", choices=("transformer", "mlp"))
    prefix_length: int = model_option(40, "embeddings that stand before a caption", at_least=1)
    clip_length: int = model_option(40, "tokens that a feature becomes inside the transformer", at_least=1)
    layers: int = model_option(8, "layers of the transformer", at_least=1)
    heads: int = model_option(8, "heads of its attention", at_least=1)

    epochs: int = training_option(10, "passes over the captions", at_least=1)
    batch_size: int = training_option(40, "captions a step", at_least=1)
    lr: float = training_option(2e-5, "highest learning rate of AdamW", above=0)
    weight_decay: float = training_option(0.0, "weight decay of AdamW", at_least=0)
    eps: float = training_option(1e-6, "epsilon of AdamW", above=0)
    warmup: int = training_option(5000, "steps of the learning rate's linear rise; then it falls to 0", at_least=0)
    save_half: bool = training_option(False, "write mapper.safetensors in fp16")

    def require_files(self) -> None:
        """Raises UserError for features or a language model that is missing, with what makes them."""
        for flag, path in (("--data", self.data), ("--validation", self.validation)):
            if path is not None:
                require_path(flag, path, "features", EXTRACTED_BY)
        require_language_model(self.language_model)

    @property
    def takes_memory(self) -> tuple[str, ...]:
        """Names of the settings that take less memory when they are lower, the best to lower first."""
        return ("batch_size",)

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        if not self.data:
            raise UserError(
                "no features; give --data a folder of caption/extract_features.py, or a published .pkl file"
            )


@dataclass
class FeatureConfig(Settings):
    """Settings of an extraction."""

    data: str = option("", "folder that holds the list, and the images that its paths start from", path=True)
    output: str = option(
        "output/features", "folder of the features: config.yaml, log.txt, the features", may_change=True, path=True
    )
    captions: str = option("", "list of captioned images, a file below --data")
    image_reading: str = option(
        "upright",
        "upright: as people see pictures; published: by PIL's conversion to RGB alone, as the published code",
        choices=("upright", "published"),
    )
    images: bool = option(True, "also the images' features; CapDec needs none")
    student: str = model_option("ViT-B/16", "the CLIP: OpenAI or open_clip name, hf-hub:..., path", path=True)
    clip_root: str | None = model_option(None, "folder with OpenAI's files (ViT-B-16.pt, ...)", path=True)
    batch_size: int = option(64, "images a pass", at_least=1)
    chunk: int = option(2048, "images or captions between two writes, all that a stop can lose", at_least=1)
    workers: int = option(2, "processes that read images; 0: none but this one", at_least=0, may_change=True)
    skip_bad_images: bool = option(False, "leave out an image that cannot be read, with its captions", may_change=True)

    def require_files(self) -> None:
        """Raises UserError for a CLIP that is named by a path and is not there."""
        require_clip("--student", self.student)

    @property
    def takes_memory(self) -> tuple[str, ...]:
        """Names of the settings that take less memory when they are lower, the best to lower first."""
        return ("batch_size",)

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        if not self.data or not self.captions:
            raise UserError("no captions; give --data a folder and --captions a list below it")
