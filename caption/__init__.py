"""Image captioning with test-time adaptation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caption.captioner import Answer, Captioner

__all__ = ["Answer", "Captioner"]


def __getattr__(name: str) -> Any:
    """Imports torch with the first class that is asked for: a command reads its settings without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from caption import captioner

    return getattr(captioner, name)
