"""Counts the images and texts that go through a CLIP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from rlcf.clip.backbone import Backbone


class Passes:
    """Images and texts that went through one CLIP, forward and backward.

    A backward pass counts where a gradient reaches the output of the image tower's first layer or of the text tower's
    last. One through a graph that was made while nothing was counted is not seen.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again from 0. Graphs that are kept go on being counted."""
        self.images = self.images_back = self.texts = self.texts_back = 0

    @contextmanager
    def counting(self, clip: Backbone) -> Iterator[None]:
        """In its body the passes of a CLIP are counted."""

        def see_images(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            self._see("images", len(output), output)

        def see_texts(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            whole = output.ndim == 3 and output.shape[1] == clip.model.context_length  # every token, not the last alone
            self._see("texts", len(output) if whole else output.numel() // output.shape[-1], output)

        tower: Any = getattr(clip.model, "text", clip.model)
        visual: Any = clip.model.visual
        hooks = [visual.conv1.register_forward_hook(see_images), tower.ln_final.register_forward_hook(see_texts)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _see(self, kind: str, count: int, output: Tensor) -> None:
        self._add(kind, count)
        if output.requires_grad:
            output.register_hook(lambda gradient: self._add(f"{kind}_back", count))

    def _add(self, name: str, count: int) -> None:
        setattr(self, name, getattr(self, name) + count)

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
