"""RLCF's ground floor: CLIP backbones, rewards, objectives, episodes and runs. It knows no task."""

__version__ = "0.1.0"
