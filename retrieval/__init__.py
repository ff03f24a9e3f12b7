"""Image-text retrieval with test-time adaptation."""
