"""What users bring: pictures, folders of pictures, lists of captions, and datasets of Hugging Face."""
