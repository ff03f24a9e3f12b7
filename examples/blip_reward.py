"""A reward of one's own: the image-text matching head of BLIP (Li et al., ICML 2022) in place of a CLIP.

    python classification/main.py --data IMAGES --datasets folder --reward py:examples.blip_reward:itm

learns from BLIP's scores; so do caption/main.py, and retrieval/main.py with --direction i2t. The environment variable
BLIP_MODEL gives another model of the kind than Salesforce/blip-itm-base-coco: a Hugging Face name, or a folder.

    python examples/blip_reward.py photo.jpg cat dog

uses it from Python: an image is classified, and the rewards of the answers that were sampled are printed.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import BlipForImageTextRetrieval, BlipProcessor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classification import Classifier
from rlcf.errors import UserError, run_main
from rlcf.run.parser import Parser


@cache
def load() -> tuple[Any, Any]:
    """The model and its processor, loaded at the first call. Raises UserError when there is none of that name."""
    name = os.environ.get("BLIP_MODEL", "Salesforce/blip-itm-base-coco")
    try:
        model, processor = BlipForImageTextRetrieval.from_pretrained(name), BlipProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot load {name} as BLIP; let BLIP_MODEL name a folder or a model to download") from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), processor


@torch.no_grad()
def itm(images: list[Image.Image], texts: list[str]) -> list[float]:
    """The probability that text i describes image i. An image that repeats is encoded once."""
    model, processor = load()
    unique = {id(image): image for image in images}
    pixels = processor.image_processor(list(unique.values()), return_tensors="pt")["pixel_values"]
    encoded = model.vision_model(pixels.to(model.device)).last_hidden_state  # (unique images, patches, width)
    rows = [list(unique).index(id(image)) for image in images]
    tokens = processor.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(model.device)
    read = model.text_encoder(tokens["input_ids"], tokens["attention_mask"], encoder_hidden_states=encoded[rows])
    logits = model.itm_head(read.last_hidden_state[:, 0])  # (N, 2): does not match, matches
    return logits.softmax(dim=-1)[:, 1].tolist()


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("names", nargs="+", help="the classes")
    parser.add_argument("--student", default="ViT-B/16", help="the CLIP that adapts")
    args = parser.parse_args()

    k = min(3, len(args.names))
    answer = Classifier(args.names, student=args.student, reward=[itm], sample_k=k)(args.image)
    last = answer.trace[-1].as_record()
    for view, answers, rewards in zip(last["views"], last["answers"], last["rewards"], strict=True):
        pairs = zip((args.names[place] for place in answers), rewards, strict=True)
        print(f"view {view}: {', '.join(f'{name} {score:.2f}' for name, score in pairs)}")
    print(f"zero-shot {answer.zero_shot_label}, adapted {answer.label}")


if __name__ == "__main__":
    run_main(main)
