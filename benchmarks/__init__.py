"""The project's speed, against the published computation of the same."""
