"""Image classification with test-time adaptation."""
