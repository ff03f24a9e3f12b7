"""Running over a dataset: settings, run folders, the loop over samples."""
