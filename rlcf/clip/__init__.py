"""CLIP models: loading, encoding, and the parts of them that adaptation tunes."""
