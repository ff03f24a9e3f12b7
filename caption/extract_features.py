"""CLIP features of a list of captioned images and of the captions, which caption/train.py learns from."""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("caption.extract_features")

from pathlib import Path

from caption.training.config import FeatureConfig
from rlcf.inputs.lists import TRAINING, read_captions
from rlcf.inputs.places import expanded
from rlcf.run.config import parse_config
from rlcf.start import importing

EPILOG = """examples:
  python caption/extract_features.py --data ROOT/dataset/coco2014 --captions coco_karpathy_train.json --output FEATURES
  python caption/extract_features.py --data LISTS --captions captions.json --no-images --output FEATURES

The list holds [{"image": path, "caption": text or texts}, ...]; its paths start from --data. The output folder gets
features.safetensors and captions.json. The same command again goes on with an extraction that was stopped.
"""


def main(argv: list[str] | None = None) -> None:
    config = parse_config(FeatureConfig, argv, __doc__ or "", EPILOG)
    config.require_files()
    samples = read_captions(Path(config.data) / expanded(config.captions), TRAINING)
    with importing():  # of torch, now that the settings are right
        from caption.training.extract import run
    run(config, samples)
