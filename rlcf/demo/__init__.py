"""The embedded world: a hundred emoji, two tiny CLIPs that know them, and styles that neither was trained on."""
