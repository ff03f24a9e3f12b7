"""The example of CLIPScore's authors: two images with good and with worse captions, and the numbers they publish.

The metrics against references need the texts alone. METEOR and the tokenizer of the published numbers need Java;
without it the built-in tokenizer must give the other numbers all the same.
"""

import json

import pytest

from clipscore import evaluate, match_captions
from clipscore.main import main

from .conftest import needs_java

REFERENCES = {
    "image1": [
        "two cats are sleeping next to each other.",
        "a grey cat is cuddling with an orange cat on a blanket.",
        "the orange cat is happy that the black cat is close to it.",
    ],
    "image2": [
        "a dog is wearing ear muffs as it lies on a carpet.",
        "a black dog and an orange cat are looking at the photographer.",
        "headphones are placed on a dogs ears.",
    ],
}
GOOD = {
    "image1": "an orange cat and a grey cat are lying together.",
    "image2": "a black dog wearing headphones looks at the camera as an orange cat walks in the background.",
}
WORSE = {
    "image1": "a calico cat and a white cat are lying together.",
    "image2": "a black dog wearing a hat looks at the camera as a tabby walks in the background.",
}
PUBLISHED = {
    "good": (GOOD, "BLEU-1 0.6667 BLEU-2 0.4899 BLEU-3 0.3469 BLEU-4 0.0000 METEOR 0.3444 ROUGE-L 0.4280 CIDEr 0.5637"),
    "worse": (
        WORSE,
        "BLEU-1 0.4815 BLEU-2 0.2404 BLEU-3 0.1359 BLEU-4 0.0000 METEOR 0.1861 ROUGE-L 0.3121 CIDEr 0.2790",
    ),
}


@pytest.mark.parametrize("which", PUBLISHED)
def test_the_metrics_against_references_are_the_published_ones_to_four_digits(which):
    captions, published = PUBLISHED[which]
    found = evaluate(match_captions(captions, references=REFERENCES), clip=None).scores
    told = " ".join(f"{metric} {value:.4f}" for metric, value in found.items())
    words = published.split()
    assert told.split() == [word for i, word in enumerate(words) if words[i - i % 2] != "METEOR"]


@needs_java
@pytest.mark.parametrize("which", PUBLISHED)
def test_with_java_meteor_is_too(which, tmp_path, capsys):
    captions, published = PUBLISHED[which]
    for name, content in (("candidates.json", captions), ("refs.json", REFERENCES)):
        (tmp_path / name).write_text(json.dumps(content))
    main([f"{tmp_path}/candidates.json", "--references", f"{tmp_path}/refs.json", "--clip", "none", "--require-java"])
    assert capsys.readouterr().out.split("\n", 1)[1].split() == published.split()
