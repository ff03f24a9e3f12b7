"""Presets: the published ones have nothing beyond the paper; the anchored ones are these with the study's options."""

import dataclasses
import shlex

import pytest

from caption.config import CaptionConfig
from classification.config import ClassificationConfig
from demo.study.methods import CAPTIONING, CLASSIFICATION, RETRIEVAL
from retrieval.config import RetrievalConfig
from rlcf.run.config import parse_config, read_preset

OPTIONS = ("candidates", "learn_from_centre", "kl_weight", "answer", "steps")
PRESETS = [
    (ClassificationConfig, "rlcf-anchored-prompt", "rlcf-prompt", CLASSIFICATION, "anchored-prompt-mean"),
    (ClassificationConfig, "rlcf-anchored-tune", "rlcf-tune-single", CLASSIFICATION, "anchored-mean"),
    *(
        (RetrievalConfig, f"tta-{d}-ret-anchored", f"tta-{d}-ret-single", RETRIEVAL, "anchored-mean")
        for d in ("coco", "flickr")
    ),
    *(
        (CaptionConfig, f"tta-{way}-anchored", f"tta-{way}-single", CAPTIONING, "anchored")
        for way in ("clipcap-c2f", "clipcap-c2n", "capdec-c2f", "capdec-c2n")
    ),
]


@pytest.mark.parametrize(("kind", "anchored", "published", "task", "run"), PRESETS, ids=lambda value: str(value)[:24])
def test_an_anchored_preset_adds_the_options_of_the_study(kind, anchored, published, task, run):
    ours, theirs = (read_preset(kind, kind.presets / f"{name}.yaml") for name in (anchored, published))
    changed = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert changed and changed <= set(OPTIONS)
    flags = shlex.split(task.methods[run][1])
    checkpoint = [] if "--checkpoint" in flags or kind is not CaptionConfig else ["--checkpoint", "x"]
    studied = parse_config(kind, [*flags, *checkpoint], "", "")
    for name in changed - {"steps"}:
        assert ours[name] == getattr(studied, name)
    given = {name for name in OPTIONS[:-1] if hasattr(studied, name)}
    assert {name for name in given if getattr(studied, name) != getattr(kind(), name)} == changed - {"steps"}


@pytest.mark.parametrize("kind", [ClassificationConfig, RetrievalConfig, CaptionConfig])
def test_what_is_beyond_the_paper_is_off_in_the_published_presets(kind):
    beyond = [spec.name for spec in dataclasses.fields(kind) if spec.metadata["group"] == "beyond the paper"]
    published = [file for file in kind.presets.glob("*.yaml") if not {"anchored", "train"} & {*file.stem.split("-")}]
    assert len(beyond) >= 3 and len(published) >= 4
    for file in published:
        assert not set(beyond) & read_preset(kind, file).keys(), file
