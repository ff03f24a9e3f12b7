"""CLIP models: loading, encoding, and their parts that adaptation tunes."""
