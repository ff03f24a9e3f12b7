"""Image-text retrieval, adapting CLIP to one query at a time.

Image to text (i2t) tunes the image tower for one image against all texts; text to image (t2i) tunes the text tower for
one text against all images. The other side's features stay frozen and are computed once. After a few steps the gallery
is ranked, and the weights are put back.
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("retrieval.main")

import itertools

from retrieval.config import RetrievalConfig
from retrieval.datasets import load_dataset
from rlcf.inputs.stored import Columns
from rlcf.run.config import parse_config
from rlcf.start import importing

EPILOG = """examples:
  python retrieval/main.py --config retrieval/configs/tta-coco-ret-single.yaml --data ROOT --datasets coco
  python retrieval/main.py --method zeroshot --student ViT-B-32:laion2b_s34b_b79k --data PHOTOS --datasets json:list
  torchrun --nproc-per-node 4 retrieval/main.py --config retrieval/configs/tta-coco-ret-single.yaml --data ROOT

The run folder gets config.yaml, log.txt, results.json, <dataset>-<direction>/records.jsonl and features/, which keeps
the frozen features. The same command again goes on with a run that was stopped. Presets: retrieval/configs/.
"""


def main(argv: list[str] | None = None) -> None:
    config = parse_config(RetrievalConfig, argv, __doc__ or "", EPILOG)
    config.require_files()
    columns = Columns(config.hf_config, config.image_column, config.caption_column)
    datasets = [load_dataset(name, config.data, config.clean_text, columns) for name in config.datasets]
    for dataset, way in itertools.product(datasets, config.one_way):
        way.check_gallery(len(dataset.gallery(way.direction)), dataset.name)
    with importing():  # of torch, now that the settings are right
        from retrieval.run import run
    run(config, datasets)
