"""RLCF's ground floor: CLIP backbones, rewards, objectives and episodes. Knows no task."""
