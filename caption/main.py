"""Image captioning, adapting the captioner to one image at a time.

The captioner proposes its most likely captions of an image, the reward model scores them, the mapper learns from that
for a few steps, the image is captioned, and the weights are put back.
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("caption.main")

from caption.config import CaptionConfig
from caption.datasets import load_dataset
from rlcf.inputs.stored import Columns
from rlcf.run.config import parse_config
from rlcf.start import importing

EPILOG = """examples:
  python caption/main.py --config caption/configs/tta-clipcap-c2f-single.yaml --data ROOT --checkpoint RUN
  python caption/main.py --method zeroshot --checkpoint RUN --data IMAGES --datasets folder
  torchrun --nproc-per-node 4 caption/main.py --config tta-capdec-c2n-single --data ROOT --checkpoint ckpt-latest.pt

The run folder gets config.yaml, log.txt, results.json and, per dataset, records.jsonl, candidates.json,
candidates-zero-shot.json and references.json, which clipscore/main.py reads. The same command again goes on with a run
that was stopped. Presets: caption/configs/.
"""


def main(argv: list[str] | None = None) -> None:
    config = parse_config(CaptionConfig, argv, __doc__ or "", EPILOG)
    config.require_files()
    columns = Columns(config.hf_config, config.image_column, config.caption_column)
    datasets = [load_dataset(name, config.data, columns) for name in config.datasets]
    with importing("transformers"):  # of torch, now that the settings are right
        from caption.run import run
    run(config, datasets)
