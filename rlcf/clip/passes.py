"""Counts the images and texts that go through a CLIP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rlcf.clip.backbone import Backbone


class Passes:
    """Images and texts that went through one CLIP: forward, and those of them with a graph, which go backward too."""

    def __init__(self) -> None:
        self.images = self.images_back = self.texts = self.texts_back = 0

    @contextmanager
    def counting(self, clip: Backbone) -> Iterator[None]:
        """In its body the passes of a CLIP are counted: by its image tower's first layer, its text tower's last."""

        def see_images(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            self.images += len(output)
            self.images_back += len(output) * output.requires_grad

        def see_texts(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            whole = output.ndim == 3 and output.shape[1] == clip.model.context_length  # every token, not the last alone
            count = len(output) if whole else output.numel() // output.shape[-1]
            self.texts += count
            self.texts_back += count * output.requires_grad

        tower: Any = getattr(clip.model, "text", clip.model)
        visual: Any = clip.model.visual
        hooks = [visual.conv1.register_forward_hook(see_images), tower.ln_final.register_forward_hook(see_texts)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def __str__(self) -> str:
        """Those that there were: "76 images, 76 back; 200 texts"."""
        parts = [
            f"{count} {kind}" + (f", {back} back" if back else "")
            for kind, count, back in (
                ("images", self.images, self.images_back),
                ("texts", self.texts, self.texts_back),
            )
            if count
        ]
        return "; ".join(parts) or "none"
