"""Image captioning with test-time adaptation."""

from caption.captioner import Answer, Captioner

__all__ = ["Answer", "Captioner"]
