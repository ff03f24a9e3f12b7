"""Evaluation of captions: n-gram metrics against references, and CLIPScore against the images themselves."""

from clipscore.captions import Captions, match_captions
from clipscore.evaluate import Evaluation, evaluate

__all__ = ["Captions", "Evaluation", "evaluate", "match_captions"]
