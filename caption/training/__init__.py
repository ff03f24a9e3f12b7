"""Training of a captioner's mapper."""
