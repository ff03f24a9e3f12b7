"""Image captioning: a mapper between CLIP and a frozen language model, trained, then adapted to one image at a time."""
