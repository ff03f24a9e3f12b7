"""The readers of files from strangers, each with whole files to mutate. All are the project's own functions.

A reader is called with the folder of an input. It returns for files that it reads, and raises UserError for others.
The readers of the runs' folders are in `tests.fuzz.runs`.
"""

import io
import json
import math
import pickle
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import torch
import yaml
from PIL import Image
from safetensors.torch import save, save_file
from transformers import OPTConfig, OPTForCausalLM

import caption.extract_features
import caption.main
import classification.main
import clipscore.main
import retrieval.main
from caption.config import CaptionConfig
from caption.language_model import load_language_model
from caption.mapper import TransformerMapper, read_checkpoint
from caption.training.config import FeatureConfig, TrainConfig
from caption.training.examples import make_examples, split_examples
from caption.training.features import Features, read_features, write_features
from classification.config import ClassificationConfig
from classification.context import initial_context
from demo.train_language_model import build_tokenizer
from retrieval.config import RetrievalConfig
from rlcf.adapt.views import Views
from rlcf.clip.backbone import Backbone
from rlcf.clip.loading import load_clip
from rlcf.clip.weights import read_weights, require_finite, tensors_in
from rlcf.inputs.images import as_image
from rlcf.run.config import parse_config
from rlcf.run.images import ImageLoader, refuse_or_skip
from tests.fuzz.mutations import Tree, read_tree
from tests.tools import OPENAI_TEXT, VIT, build_clip, write_picture

MB = 2**20
WIDTH, FEATURES = 32, 16


@dataclass(frozen=True)
class Reader:
    """A reader.

    seeds: writes what the reader needs beside its files into a folder, which is kept; gives name -> whole files.
    read: reads the files of a folder, given also the name of the seed that they were made of and the folder of `seeds`.
    weight: its share of the inputs. targets: patterns of the files that are mutated. memory: bytes that reading may
    take beyond ten times the files' own. refused: seeds of forms that it refuses even where they are whole.
    command: it is an entry script's main, where a failure of the system is told in one sentence, too.
    """

    name: str
    seeds: Callable[[Path], dict[str, Tree]]
    read: Callable[[Path, str, Path], object]
    weight: int = 4
    targets: Sequence[str] = ("*",)
    memory: int = 300 * MB
    refused: Sequence[str] = ()
    command: bool = False


# ---- models that readers need beside their files ----


@cache
def tiny_clip() -> Backbone:
    """A tiny CLIP that reads any text."""
    model = build_clip(vision=VIT, text=OPENAI_TEXT, seed=1, quick_gelu=True)
    grey = {"size": 32, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bicubic"}
    preprocess = {"mode": "RGB", "resize_mode": "shortest", "fill_color": 0, **grey}
    return Backbone("tiny", model, open_clip.SimpleTokenizer(context_length=77), preprocess, torch.device("cpu"))


def tiny_lm_files(folder: Path) -> Path:
    """The folder of a tiny language model that knows the words of the demo's captions."""
    torch.manual_seed(3)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder)
    ids = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    config = OPTConfig(**sizes, **ids, word_embed_proj_dim=WIDTH, ffn_dim=64, pad_token_id=1)
    OPTForCausalLM(config).eval().save_pretrained(folder)
    return folder


@cache
def tiny_lm() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return load_language_model(str(tiny_lm_files(Path(folder) / "lm")))


def mapper() -> TransformerMapper:
    torch.manual_seed(5)
    return TransformerMapper(FEATURES, WIDTH, prefix_length=3, clip_length=2, layers=1, heads=4).eval()


def with_models(run: Callable[[], object]) -> None:
    """Call something with the tiny models in place of those that its flags name."""
    places = ["rlcf.run.setup", "caption.training.extract", "caption.evaluate", "rlcf.clip.loading"]
    with ExitStack() as patched:
        for place in places:
            patched.enter_context(patch(f"{place}.load_clip", lambda *_: tiny_clip()))
        patched.enter_context(patch("caption.captioner.load_language_model", lambda *_: tiny_lm()))
        patched.enter_context(patch("caption.training.run.load_language_model", lambda *_: tiny_lm()))
        patched.enter_context(patch("rlcf.run.run.commit", lambda: None))
        run()


# ---- images ----


def image_seeds(folder: Path) -> dict[str, Tree]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    frames = [image, image.rotate(90, expand=False)]

    def written(kind: str, picture: Image.Image = image, **how: Any) -> Tree:
        stream = io.BytesIO()
        picture.save(stream, kind, **how)
        return {"image": stream.getvalue()}

    seeds = {kind: written(kind) for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM")}
    seeds |= {"ICO": written("ICO", sizes=[(16, 16), (24, 24)]), "GIF": written("GIF", image.convert("P"))}
    seeds |= {"CMYK": written("JPEG", image.convert("CMYK")), "progressive": written("JPEG", progressive=True)}
    seeds |= {"palette": written("PNG", image.convert("P")), "alpha": written("PNG", image.convert("LA"))}
    deep = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
    seeds |= {"16 bits": written("PNG", deep), "animated": written("GIF", save_all=True, append_images=frames)}
    seeds |= {
        "animated WebP": written("WEBP", save_all=True, append_images=frames),
        "LZW": written("TIFF", compression="tiff_lzw"),
    }
    return seeds


def read_picture(folder: Path, seed: str, beside: Path) -> None:
    """As a run does it, and as Python's classes do."""
    clip = tiny_clip()
    file = folder / "image"
    _, found = ImageLoader([file], [0], Views(clip.centre_view, clip.size, count=2), clip.size)[0]
    if not isinstance(found, torch.Tensor) and hasattr(found, "reason"):
        refuse_or_skip(found, False)
    as_image(str(file))


# ---- weights ----


def saved(content: Any, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def scripted(model: torch.nn.Module, *inputs: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = torch.jit.trace(model, inputs, check_trace=False) if inputs else torch.jit.script(model)
        torch.jit.save(made, stream)
    return stream.getvalue()


def weight_seeds(folder: Path) -> dict[str, Tree]:
    tensors = {"a": torch.arange(30.0), "b": torch.ones(3, 2).half(), "c.d": torch.zeros(2, 2, dtype=torch.int64)}
    content = {"state_dict": tensors, "lr": [1, 2.5, {"x": None}], "args": Namespace(a=1), "epoch": 3}
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    return {
        "zip": {"weights.pt": saved(content)},
        "legacy": {"weights.pt": saved(content, legacy=True)},
        "archive": {"weights.script": scripted(net)},
        "traced archive": {"weights.script": scripted(net.eval(), torch.ones(1, 2))},
        "safetensors": {"weights.safetensors": save(tensors, {"format": "pt"})},
    }


def read_weight_file(folder: Path, seed: str, beside: Path) -> None:
    file = folder / {"safetensors": "weights.safetensors"}.get(
        seed, "weights.script" if "archive" in seed else "weights.pt"
    )
    require_finite(file, tensors_in(read_weights(file)))


class Traced(torch.nn.Module):
    """A CLIP whose archive holds its weights."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        for name, child in model.named_children():
            self.add_module(name, child)
        for name, parameter in model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for parameter in self.parameters():
            x = x + parameter.float().sum()
        return x


def clip_file_seeds(folder: Path) -> dict[str, Tree]:
    def state(**vision: Any) -> dict[str, torch.Tensor]:
        kind = {"vision": {**VIT, "layers": 1, **vision}, "text": {**OPENAI_TEXT, "layers": 1}}
        model = build_clip(**kind, seed=1, quick_gelu=True)
        return {name: tensor.half() for name, tensor in model.state_dict().items() if name != "attn_mask"}

    resnet = {"image_size": 64, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
    model = build_clip(vision={**VIT, "layers": 1}, text={**OPENAI_TEXT, "layers": 1}, quick_gelu=True).half()
    return {
        "zip": {"clip.pt": saved(state())},
        "legacy": {"clip.pt": saved({"state_dict": state(), "epoch": 1}, legacy=True)},
        "resnet": {"clip.pt": saved(state(**resnet))},
        "safetensors": {"clip.safetensors": save(state())},
        "traced archive": {"clip.script": scripted(Traced(model), torch.zeros(1))},
    }


def clip_folder_seeds(folder: Path) -> dict[str, Tree]:
    tokenizer = build_tokenizer(folder / "words")
    words = {file.name: file.read_bytes() for file in (folder / "words").iterdir()}
    seeds: dict[str, Tree] = {}
    text = {"context_length": 16, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 1}
    pieces = {**OPENAI_TEXT, "width": 32, "layers": 1}
    vit = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 64}
    resnet = {"image_size": 32, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
    for name, vision in (("vit", vit), ("resnet", resnet)):
        model = build_clip(vision=vision, text=text)
        config = {
            "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {**text, "hf_tokenizer_name": "local"}},
            "preprocess_cfg": {"size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"},
        }
        seeds[name] = {
            **words,
            "open_clip_config.json": json.dumps(config).encode(),
            "open_clip_model.safetensors": save({k: v.contiguous() for k, v in model.state_dict().items()}),
        }
    described = json.loads(seeds["vit"]["open_clip_config.json"])
    described["model_cfg"]["text_cfg"] = pieces
    seeds["pieces"] = {
        "open_clip_config.json": json.dumps(described).encode(),
        "open_clip_pytorch_model.bin": saved(build_clip(vision=vit, text=pieces).state_dict()),
    }
    return seeds


def use(clip: Backbone) -> None:
    """All that a run asks of a CLIP: the features of an image and of texts."""
    view = Views(clip.centre_view, clip.size, count=2)(Image.new("RGB", (40, 30), "red"), 0)
    assert isinstance(view, torch.Tensor)
    clip.encode_image(clip.prepare(view))
    texts = ["a dog", "an owl above a red apple"]
    clip.encode_text(texts), clip.truncated(texts), clip.digest, float(clip.logit_scale)


def read_clip_file(folder: Path, seed: str, beside: Path) -> None:
    use(
        load_clip(
            str(folder / {"safetensors": "clip.safetensors", "traced archive": "clip.script"}.get(seed, "clip.pt"))
        )
    )


def coop_seeds(folder: Path) -> dict[str, Tree]:
    held = {
        "state_dict": {"ctx": torch.ones(4, 64), "token_prefix": torch.ones(3, 1, 64)},
        "epoch": 50,
        "val_result": 61.2,
    }
    return {
        "file": {"coop.pt": saved(held)},
        "legacy": {"coop.pt": saved(held, legacy=True)},
        "folder": {"coop.pt/prompt_learner/model.pth.tar-50": saved(held)},
        "safetensors": {"coop.safetensors": save({"ctx": torch.ones(4, 64)})},
    }


def read_coop(folder: Path, seed: str, beside: Path) -> None:
    file = folder / ("coop.safetensors" if seed == "safetensors" else "coop.pt")
    initial_context(tiny_clip(), str(file), 4, "a photo of a", 0)


def captioner_seeds(folder: Path) -> dict[str, Tree]:
    tiny_lm_files(folder / "lm")  # its config tells what a captioner's own language model is
    own = {f"clip_project.{name}": tensor.detach() for name, tensor in mapper().state_dict().items()}
    lm = {f"llm.llm.{name}": tensor.detach() for name, tensor in tiny_lm().model.state_dict().items()}
    described = {"method": "clipcap", "heads": 4, "width": WIDTH, "student": "tiny", "epoch": 2}
    training = {"state_dict": own, "epoch": 2, "described": described, "key": "00" * 32, "scaler": {}}
    mlp = {"model.0.weight": torch.ones(48, FEATURES), "model.0.bias": torch.ones(48)}
    mlp |= {"model.2.weight": torch.ones(96, 48), "model.2.bias": torch.ones(96)}
    return {
        "safetensors": {"captioner/mapper.safetensors": save(own, {"captioner": json.dumps(described)})},
        "training": {"captioner/ckpt-latest.pt": saved(training)},
        "published": {"captioner.pt": saved({"state_dict": {**own, **lm}, "hyper_parameters": {"lr": 1e-5}})},
        "mlp": {"captioner.pt": saved({f"clip_project.{name}": tensor for name, tensor in mlp.items()})},
    }


@torch.no_grad()
def read_captioner(folder: Path, seed: str, beside: Path) -> None:
    file = folder / ("captioner" if seed in ("safetensors", "training") else "captioner.pt")
    checkpoint = read_checkpoint(str(file))
    built = checkpoint.build_mapper(WIDTH)
    if built.feature_width < 10_000:
        built(torch.ones(1, getattr(built, "feature_width", FEATURES)))
    if checkpoint.language_model:
        load_language_model(str(beside / "lm"), weights=checkpoint.language_model)


def lm_seeds(folder: Path) -> dict[str, Tree]:
    return {"opt": read_tree(tiny_lm_files(folder / "lm"))}


@torch.no_grad()
def read_lm(folder: Path, seed: str, beside: Path) -> None:
    lm = load_language_model(str(folder))
    ids, mask = lm.tokenize(["a dog above an owl", "a cat"])
    lm.token_log_likelihood(torch.zeros(2, 3, lm.width), ids, mask)


# ---- features ----

CAPTIONS = ["a dog above a key", "a cat below a car", "a pig above a key", "a dog below a car"]


def feature_seeds(folder: Path) -> dict[str, Tree]:
    rows = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(0))
    (folder / "written").mkdir(parents=True, exist_ok=True)
    write_features(folder / "written", Features(CAPTIONS, [0, 0, 1, 1], [0, 1, 2, 3], rows[:2].clone(), rows, "tiny"))
    published = {"captions": CAPTIONS, "clip_image_embedding": [row[None] for row in rows[:2]]}
    published |= {"clip_text_embedding": rows, "image_index": [0, 0, 1, 1], "text_index": [0, 1, 2, 3]}
    written = {f"features/{name}": content for name, content in read_tree(folder / "written").items()}
    return {"written": written, "published": {"features.pkl": pickle.dumps(published)}}


def read_feature_files(folder: Path, seed: str, beside: Path) -> None:
    source = str(folder / ("features" if seed == "written" else "features.pkl"))
    features = read_features(source)
    for kind in ("image", "text"):
        examples = make_examples(tiny_lm(), features, kind, True, source)
        for part in split_examples(examples, features, 0.5, 0):
            if len(part):
                part.take(tiny_lm(), np.arange(len(part)))


# ---- lists ----

IMAGES = ["a.png", "b.png", "train2014/COCO_train2014_000000000003.jpg"]


def pictures(*names: str) -> Tree:
    """Pictures of noise by their names."""
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(names):
            write_picture(Path(folder) / name, number, (20, 16))
        return read_tree(Path(folder))


TEXTS_OF = [["a dog above an owl", "an owl below a dog"], ["a cat"], ["a key", "a pig", "a car"]]
LISTED = [{"image": image, "caption": texts} for image, texts in zip(IMAGES, TEXTS_OF, strict=True)]
COCO = {
    "info": {"year": 2014},
    "images": [{"id": i, "file_name": image, "height": 16, "width": 20} for i, image in enumerate(IMAGES)],
    "annotations": [
        {"id": 10 * i + j, "image_id": i, "caption": text}
        for i, texts in enumerate(TEXTS_OF)
        for j, text in enumerate(texts)
    ],
}
NOCAPS = {**COCO, "images": [{**image, "domain": "in-domain", "coco_url": "x"} for image in COCO["images"]]}  # type: ignore[attr-defined]
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filename": Path(image).name,
            "filepath": str(Path(image).parent),
            "cocoid": i,
            "imgid": i,
            "split": "test",
            "sentids": list(range(len(texts))),
            "sentences": [
                {"raw": text, "tokens": text.split(), "imgid": i, "sentid": j} for j, text in enumerate(texts)
            ],
        }
        for i, (image, texts) in enumerate(zip(IMAGES, TEXTS_OF, strict=True))
    ],
}
ONE_EACH = [{"image": image, "caption": text} for image, texts in zip(IMAGES, TEXTS_OF, strict=True) for text in texts]
FORMS = {"listed": LISTED, "one each": ONE_EACH, "coco": COCO, "nocaps": NOCAPS, "karpathy": KARPATHY}
RESULTS = [{"image_id": i, "caption": texts[0]} for i, texts in enumerate(TEXTS_OF)]


def as_json(content: Any) -> bytes:
    return json.dumps(content).encode()


def list_seeds(folder: Path) -> dict[str, Tree]:
    own = {f"data/{name}": content for name, content in pictures(*IMAGES).items()}
    return {name: {"data/list.json": as_json(form), **own} for name, form in FORMS.items()}


QUICK = ["--workers", "0", "--device", "cpu", "--student", "tiny", "--method", "zeroshot"]


def flags(folder: Path, *more: object) -> list[str]:
    return [*map(str, ["--data", folder / "data", "--output", folder / "run", *more])]


def read_retrieval_list(folder: Path, seed: str, beside: Path) -> None:
    more = ["--datasets", "json:list", "--direction", "both", *QUICK, "--limit", 3]
    with_models(lambda: retrieval.main.main(flags(folder, *more)))


def checkpoint_beside(folder: Path) -> Path:
    file = folder / "mapper.safetensors"
    save_file({f"clip_project.{name}": tensor.detach().clone() for name, tensor in mapper().state_dict().items()}, file)
    return file


def read_caption_list(folder: Path, seed: str, beside: Path) -> None:
    more = ["--datasets", "json:list", *QUICK, "--checkpoint", checkpoint_beside(folder), "--beams", 1]
    more += ["--max-new-tokens", 2, "--language-model", "tiny", "--limit", 2, "--skip-bad-images"]
    with_models(lambda: caption.main.main(flags(folder, *more)))


def read_extraction_list(folder: Path, seed: str, beside: Path) -> None:
    more = ["--captions", "list.json", "--student", "tiny", "--workers", 0, "--device", "cpu", "--skip-bad-images"]
    with_models(lambda: caption.extract_features.main(flags(folder, *more)))


def clipscore_seeds(folder: Path) -> dict[str, Tree]:
    own = {f"images/{name}": content for name, content in pictures(*IMAGES).items()}
    candidates = {image: texts[0] for image, texts in zip(IMAGES, TEXTS_OF, strict=True)}
    references = dict(zip(IMAGES, TEXTS_OF, strict=True))
    pairs = {
        "own": (candidates, references),
        "names": ({"a": "a dog"}, {"a": "a dog"}),
        "results": (RESULTS, COCO),
        "karpathy": (candidates, KARPATHY),
        "listed": (candidates, LISTED),
    }
    return {
        name: {"candidates.json": as_json(first), "references.json": as_json(second), **own}
        for name, (first, second) in pairs.items()
    }


def read_scores(folder: Path, seed: str, beside: Path) -> None:
    argv = [folder / "candidates.json", folder / "images", "--references", folder / "references.json", "--no-java"]
    argv += ["--clip", "tiny", "--workers", 0, "--device", "cpu", "--output", folder / "scores.json"]
    with_models(lambda: clipscore.main.main([*map(str, argv)]))


# ---- datasets of classification ----


def split_seeds(folder: Path) -> dict[str, Tree]:
    paths = [f"{name}/{number}.jpg" for name in ("cat", "sea_lion") for number in range(2)]
    own = {f"data/dtd/images/{name}": content for name, content in pictures(*paths).items()}
    rows = [[path, label // 2, path.split("/")[0]] for label, path in enumerate(paths)]
    split = {"train": rows[:1], "val": rows[2:3], "test": rows}
    planes = {f"data/fgvc_aircraft/images/{name}": content for name, content in pictures("1.jpg", "2.jpg").items()}
    lists = {"variants.txt": b"707-320\nA 380\n", "images_variant_test.txt": b"1 707-320\n2 A 380\n"}
    return {
        "dtd": {"data/dtd/split_zhou_DescribableTextures.json": as_json(split), **own},
        "aircraft": {**{f"data/fgvc_aircraft/{name}": content for name, content in lists.items()}, **planes},
    }


def classify(folder: Path, *more: object) -> None:
    all_flags = flags(folder, *more, *QUICK, "--views", 2, "--selection", 1.0, "--limit", 4, "--skip-bad-images")
    with_models(lambda: classification.main.main(all_flags))


def class_seeds(folder: Path) -> dict[str, Tree]:
    own = pictures("cat/0.png", "dog/0.png", "sea lion/0.png")
    own = {f"data/{name}": content for name, content in own.items()}
    return {"names": {"names.txt": b"a cat\na dog\na sea lion\n", **own}}


# ---- presets ----

PRESETS = {
    "classification": (ClassificationConfig, {"method": "rlcf", "tune": "prompt", "lr": 7e-3, "steps": 3, "views": 64}),
    "retrieval": (RetrievalConfig, {"direction": "i2t", "reward": ["ViT-L/14", "RN50x64"], "reward_weights": [10, 3]}),
    "caption": (CaptionConfig, {"datasets": ["coco"], "sample_k": 10, "steps": 4, "checkpoint": "x", "momentum": True}),
    "training": (TrainConfig, {"data": "features", "method": "capdec", "noise_variance": 0.016, "validation": None}),
    "extraction": (FeatureConfig, {"data": "x", "captions": "list.json", "images": False, "batch_size": 64}),
}


def preset_seeds(folder: Path) -> dict[str, Tree]:
    return {name: {"preset.yaml": yaml.safe_dump(held).encode()} for name, (_, held) in PRESETS.items()}


def read_preset_file(folder: Path, seed: str, beside: Path) -> None:
    config = parse_config(PRESETS[seed][0], ["--config", str(folder / "preset.yaml")], "", "")
    numbers = [value for value in vars(config).values() if isinstance(value, float)]
    assert all(math.isfinite(number) for number in numbers)


READERS = [
    Reader("images", image_seeds, read_picture, 22, memory=1500 * MB),
    Reader("weights", weight_seeds, read_weight_file, 25),
    Reader("clip-files", clip_file_seeds, read_clip_file, 5, refused=("legacy",)),
    Reader("clip-folders", clip_folder_seeds, lambda folder, seed, beside: use(load_clip(str(folder))), 12),
    Reader("coop", coop_seeds, read_coop, 8),
    Reader("captioners", captioner_seeds, read_captioner, 10),
    Reader("language-models", lm_seeds, read_lm, 8),
    Reader("features", feature_seeds, read_feature_files, 12),
    Reader(
        "retrieval-lists",
        list_seeds,
        read_retrieval_list,
        6,
        ("*.json",),
        command=True,
    ),
    Reader("caption-lists", list_seeds, read_caption_list, 6, ("*.json",), command=True),
    Reader("extraction-lists", list_seeds, read_extraction_list, 6, ("*.json",), refused=("karpathy",), command=True),
    Reader(
        "clipscore",
        clipscore_seeds,
        read_scores,
        10,
        ("*.json",),
        refused=("results",),
        command=True,
    ),
    Reader(
        "splits",
        split_seeds,
        lambda folder, seed, beside: classify(folder, "--datasets", seed),
        6,
        ("*.json", "*.txt"),
        command=True,
    ),
    Reader(
        "class-names",
        class_seeds,
        lambda folder, seed, beside: classify(folder, "--datasets", "folder", "--classnames", folder / "names.txt"),
        4,
        ("names.txt",),
        command=True,
    ),
    Reader("presets", preset_seeds, read_preset_file, 12),
]
