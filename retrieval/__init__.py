"""Image-text retrieval with test-time adaptation."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.retriever import Answer, Retriever

__all__ = ["Answer", "Retriever"]


def __getattr__(name: str) -> Any:
    """Imports torch with the first class that is asked for: a command reads its settings without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from retrieval import retriever

    return getattr(retriever, name)
