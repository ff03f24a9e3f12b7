"""Image classification with test-time adaptation."""

from classification.classifier import Answer, Classifier

__all__ = ["Answer", "Classifier"]
