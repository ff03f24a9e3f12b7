"""Image classification with test-time adaptation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classification.classifier import Answer, Classifier

__all__ = ["Answer", "Classifier"]


def __getattr__(name: str) -> Any:
    """Imports torch with the first class that is asked for: a command reads its settings without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from classification import classifier

    return getattr(classifier, name)
