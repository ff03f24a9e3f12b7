"""Training of a captioner's mapper; CLIP and the language model stay frozen.

ClipCap learns from the features of captioned images. CapDec needs no image: it learns from the features of the captions
themselves, to which noise is added, and takes image features for text features afterwards.
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("caption.train")

from caption.training.config import TrainConfig
from rlcf.run.config import parse_config
from rlcf.start import importing

EPILOG = """examples:
  python caption/train.py --config caption/configs/train-clipcap-coco.yaml --data FEATURES
  python caption/train.py --method capdec --data COCO_train_set_image_text_vitb16_v2.pkl --output output/capdec

FEATURES is a folder that caption/extract_features.py wrote, or a published .pkl file. The run folder gets config.yaml,
log.txt, loss.json, loss.png, mapper.safetensors, which caption/main.py takes as --checkpoint, and ckpt-latest.pt, from
which the same command goes on when it was stopped. Presets: caption/configs/.
"""


def main(argv: list[str] | None = None) -> None:
    config = parse_config(TrainConfig, argv, __doc__ or "", EPILOG)
    config.require_files()
    with importing("transformers"):  # of torch, now that the settings are right
        from caption.training.run import run
    run(config)
