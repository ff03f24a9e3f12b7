"""Image-text retrieval with test-time adaptation."""

from retrieval.retriever import Answer, Retriever

__all__ = ["Answer", "Retriever"]
