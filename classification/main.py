"""Image classification, adapting CLIP to one image at a time.

Each image's views are ranked by the entropy of their zero-shot logits; the most confident ones are learnt from for a
few steps, the image is answered, and the weights are put back.
"""

import os
import sys

if __name__ == "__main__":  # imports start from the project; from here on a signal ends the command in one line
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120 (pathlib loads slowly)
    from rlcf.start import start

    start("classification.main")

from classification.config import ClassificationConfig
from classification.datasets import load_dataset
from rlcf.inputs.stored import Columns
from rlcf.run.config import parse_config
from rlcf.start import importing

EPILOG = """examples:
  python classification/main.py --config classification/configs/rlcf-prompt.yaml --data ROOT --datasets A V R K
  python classification/main.py --method zeroshot --student ViT-B-32:laion2b_s34b_b79k --data IMAGES --datasets folder
  python classification/main.py --data PHOTOS --datasets images --classnames names.txt --tune prompt
  torchrun --nproc-per-node 4 classification/main.py --config classification/configs/rlcf-tune-single.yaml --data ROOT

The run folder gets config.yaml, log.txt, results.json and <dataset>/records.jsonl. The same command again goes on with
a run that was stopped. Presets: classification/configs/.
"""


def main(argv: list[str] | None = None) -> None:
    config = parse_config(ClassificationConfig, argv, __doc__ or "", EPILOG)
    config.require_files()
    columns = Columns(config.hf_config, config.image_column, config.label_column)
    datasets = [
        load_dataset(name, config.data, config.corruption, config.severity, config.classnames, columns)
        for name in config.datasets
    ]
    for dataset in datasets:
        config.check_classes(len(dataset.classnames), dataset.name)
    with importing():  # of torch, now that the settings are right
        from classification.run import run
    run(config, datasets)
