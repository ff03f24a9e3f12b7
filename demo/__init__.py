"""The embedded world: a hundred emoji, tiny models that know them, and styles that none was trained on."""
