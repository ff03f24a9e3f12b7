"""The project's speed, against straightforward loops that compute the same."""
