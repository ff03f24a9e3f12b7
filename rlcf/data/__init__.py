"""Datasets and weight files: what the project knows, what is there, what is wrong with it, and how to get it."""
