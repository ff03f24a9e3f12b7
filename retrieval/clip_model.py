"""The student: what is tuned, and how a query's logits over the gallery come about."""

from torch import Tensor

from rlcf.backbone import Backbone
from rlcf.tuning import tune_image_tower, tune_text_tower


class ImagePolicy:
    """Image to text: tunes the image tower for one image; the texts' features are frozen.

    text_features: (T, D), unit length. tune: "encoder" or "norm". The statistics of a ResNet's BatchNorm layers stay
    the stored ones: one image has none.
    """

    def __init__(self, clip: Backbone, text_features: Tensor, tune: str = "encoder") -> None:
        self.clip, self.text_features = clip, text_features
        self.tuned = tune_image_tower(clip, tune == "norm")

    def encode(self, image: Tensor) -> Tensor:
        """What stays frozen of a sample. image: (1, 3, H, W) as read. Returns (1, 3, *size) pixels."""
        return self.clip.prepare(image)

    def logits(self, pixels: Tensor) -> Tensor:
        """pixels: (1, 3, *size) from `encode`. Returns (1, T), scaled."""
        return self.clip.logit_scale * self.clip.encode_image(pixels) @ self.text_features.T


class TextPolicy:
    """Text to image: tunes the text tower for one text; the images' features are frozen.

    image_features: (I, D), unit length. tune: "encoder" or "norm". embeddings: also tune the token embeddings and the
    logit scale, as the published runs.
    """

    def __init__(self, clip: Backbone, image_features: Tensor, tune: str = "encoder", embeddings: bool = False) -> None:
        self.clip, self.image_features = clip, image_features
        self.tuned = tune_text_tower(clip, tune == "norm", embeddings)

    def encode(self, text: str) -> Tensor:
        """What stays frozen of a sample. Returns its (1, L) tokens."""
        return self.clip.tokenize([text])

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens: (1, L) from `encode`. Returns (1, I), scaled."""
        return self.clip.logit_scale * self.clip.encode_tokens(tokens) @ self.image_features.T


Policy = ImagePolicy | TextPolicy
