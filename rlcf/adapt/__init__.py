"""Adapting to one sample: views, rewards, objectives and episodes."""
