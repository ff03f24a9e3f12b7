"""Evaluation of captions: n-gram metrics against references, and CLIPScore against the images themselves."""
