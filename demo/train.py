"""Train the embedded CLIPs from nothing.

    OMP_WAIT_POLICY=PASSIVE python -m demo.train student
    OMP_WAIT_POLICY=PASSIVE python -m demo.train reward

writes assets/demo-student and assets/demo-reward, and prints the top-1 accuracy per style on the validation seed. A
training that was stopped continues with the same command.
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.train")

import io
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from demo.art import NAMES, OBJECTS, REWARD_ARTISTS, SIDE, STUDENT_ARTISTS, draw
from demo.scenes import (
    COLOURS,
    CONVERSE,
    SCENE_OBJECTS,
    Scene,
    article,
    draw_scenes,
    draw_singles,
    sample_scene,
    scene_captions,
)
from demo.styles import TEST_STYLES, Style, augment_heavily, augment_lightly, random_crops
from demo.world import VALIDATION_SEED, classification_images
from rlcf.clip.loading import load_clip
from rlcf.clip.text_tower import TextTower
from rlcf.errors import UserError
from rlcf.run.files import write_atomically
from rlcf.run.parser import Parser
from rlcf.shipped import ASSETS

CONTEXT = 32
SINGLES, SCENES, HARD = 64, 48, 16  # a batch: single objects, scenes, scenes that differ from those in one point
SAVED_EVERY = 200
"""Steps of a training after which its state is kept."""


@dataclass(frozen=True)
class Phase:
    """A part of a training. crops: True where pictures of single objects are cropped at random."""

    steps: int
    lr: float
    crops: bool


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    artists: tuple[str, ...]
    augment: Style
    seed: int
    phases: tuple[Phase, ...]


RECIPES = {
    "student": Recipe(STUDENT_ARTISTS, augment_lightly, 11, (Phase(1500, 1e-3, crops=True),)),
    # With crops from the start it learns other artists and heavy augmentations far more slowly.
    "reward": Recipe(
        REWARD_ARTISTS, augment_heavily, 23, (Phase(5000, 1e-3, crops=False), Phase(1500, 5e-4, crops=True))
    ),
}

MODEL = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 0,
        "hf_tokenizer_name": "local",
        "width": 128,
        "heads": 4,
        "layers": 2,
    },
}
PREPROCESS = {"size": SIDE, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}


def single_captions(name: str, colour: str) -> list[str]:
    """Captions of one object: OpenAI's 80 templates, and what stands on which ground."""
    templates = [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    plain = [
        f"a photo of a {name}.",
        f"a photo of {article(name)}.",
        f"{article(name)} on {article(colour)} background",
    ]
    return [*plain, *templates]


def all_texts() -> list[str]:
    """Texts that hold every word of the world."""
    names = range(len(SCENE_OBJECTS))
    scenes = [Scene(i, (i + 1) % len(names), r, c) for i in names for r in range(4) for c in COLOURS]
    singles = [text for name in NAMES for text in single_captions(name, "white")]
    return [*singles, *(text for scene in scenes for text in scene_captions(scene))]


def build_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer of the world's vocabulary, saved to the folder; end-of-text has the highest id."""
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in all_texts() for word, _ in split.pre_tokenize_str(text.lower())})
    ids = {word: i for i, word in enumerate(["<pad>", "<unk>", "<sos>", *words, "<eot>"])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<sos> $A <eot>", special_tokens=[("<sos>", ids["<sos>"]), ("<eot>", ids["<eot>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<sos>",
        eos_token="<eot>",
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(folder)
    return fast


class Batches:
    """Draws batches of pictures and captions.

    The first SINGLES pictures show distinct single objects or crops of them, the rest scenes. The last HARD scenes are
    an earlier one with its objects swapped, another relation or another ground.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.rng, self.crops = recipe, np.random.default_rng(recipe.seed), False
        self.drawings = torch.stack([draw(artist) for artist in recipe.artists])

    def __call__(self) -> tuple[Tensor, list[str]]:
        rng = self.rng
        things = rng.choice(len(NAMES), SINGLES, replace=False)
        colours = [str(colour) for colour in rng.choice(list(COLOURS), SINGLES)]
        singles = draw_singles(self._drawn(things), colours, rng)
        texts = [self._caption(single_captions(NAMES[i], c)) for i, c in zip(things, colours, strict=True)]
        scenes = [sample_scene(rng, held_out=False) for _ in range(SCENES)]
        scenes += [self._changed(scene) for scene in scenes[:HARD]]
        first, second = (self._drawn(np.array([getattr(s, part) for s in scenes])) for part in ("first", "second"))
        pictures = self.recipe.augment(torch.cat([singles, draw_scenes(first, second, scenes, rng)]), rng)
        if self.crops:
            pictures[:SINGLES] = random_crops(pictures[:SINGLES], rng)
        texts += [str(rng.choice(scene_captions(scene))) for scene in scenes]
        return pictures, texts

    def _drawn(self, things: np.ndarray) -> Tensor:
        return self.drawings[self.rng.integers(len(self.drawings), size=len(things)), things]

    def _caption(self, captions: list[str]) -> str:
        """One of the three plain captions, or as often one of the templates."""
        return captions[self.rng.integers(3) if self.rng.random() < 0.5 else self.rng.integers(3, len(captions))]

    def _changed(self, scene: Scene) -> Scene:
        changed = [
            Scene(scene.second, scene.first, scene.relation, scene.colour),
            Scene(scene.first, scene.second, CONVERSE[scene.relation], scene.colour),
            Scene(scene.first, scene.second, scene.relation, str(self.rng.choice(list(COLOURS)))),
        ]
        return changed[self.rng.integers(len(changed))]


def train(name: str, steps: int | None, folder: Path, seed: int | None = None, compiled: bool = False) -> nn.Module:
    """Train a model of `RECIPES` and write it to a folder. Returns the model.

    steps: of each phase, None for the recipe's; seed: None for the recipe's; compiled: torch.compile the image tower,
    which takes a minute or two and a C++ compiler, and then saves a quarter of each step.
    """
    recipe = RECIPES[name] if seed is None else replace(RECIPES[name], seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder)
    config = json.loads(json.dumps(MODEL))
    config["text_cfg"]["vocab_size"] = len(tokenizer)
    torch.manual_seed(recipe.seed)
    model = open_clip.CLIP(**config)
    model.visual.to(memory_format=torch.channels_last)  # half the time of a step on a CPU
    if compiled:
        model.visual.compile()
    batches = Batches(recipe)
    phases = tuple(replace(phase, steps=steps or phase.steps) for phase in recipe.phases)
    checkpoint = Checkpoint(folder / "training.pt", f"{name}, seed {recipe.seed}, {phases}")
    for number, phase in enumerate(phases, start=1):
        fit(model, tokenizer, batches, phase, checkpoint, f"{name}, phase {number}")
    half = {key: value.half() if value.is_floating_point() else value for key, value in model.state_dict().items()}
    described = {"model_cfg": config, "preprocess_cfg": PREPROCESS}
    write_atomically(folder / "open_clip_config.json", json.dumps(described, indent=2) + "\n")
    weights = save({key: value.contiguous() for key, value in half.items()})
    write_atomically(folder / "open_clip_model.safetensors", weights)  # last: with it the model is whole
    checkpoint.file.unlink(missing_ok=True)
    return model


@dataclass(frozen=True)
class Checkpoint:
    """A training's state in a file. recipe: what is trained, and how; another training's file is refused."""

    file: Path
    recipe: str

    def save(self, phase: str, step: int, batches: Batches, **parts: Any) -> None:
        """Write the state after `step` steps of a phase. parts: what has a state dict."""
        states = {name: part.state_dict() for name, part in parts.items()}
        drawn = batches.rng.bit_generator.state
        content = io.BytesIO()
        torch.save({"recipe": self.recipe, "phase": phase, "step": step, "drawn": drawn, **states}, content)
        write_atomically(self.file, content.getvalue())

    def restore(self, phase: Phase, desc: str, batches: Batches, **parts: Any) -> int:
        """Load the state, if it was saved in this phase or a later one. Returns the phase's done steps."""
        if not self.file.exists():
            return 0
        kept = torch.load(self.file, weights_only=True)
        if kept["recipe"] != self.recipe:
            raise UserError(f"{self.file} is of another training ({kept['recipe']}); remove it")
        if kept["phase"] != desc:
            return phase.steps if desc < kept["phase"] else 0
        for name, part in parts.items():
            part.load_state_dict(kept[name])
        batches.rng.bit_generator.state = kept["drawn"]
        return kept["step"]


def fit(model: Any, tokenizer: Any, batches: Batches, phase: Phase, checkpoint: Checkpoint, desc: str) -> None:
    """One phase of a training, with an optimiser and a schedule of its own. Goes on from the checkpoint."""
    batches.crops = phase.crops
    text_tower = TextTower(model)
    mean, std = (torch.tensor(PREPROCESS[key]).view(3, 1, 1) for key in ("mean", "std"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=phase.lr, weight_decay=0.05, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / phase.steps)))
    )
    state = {"model": model, "optimiser": optimiser, "schedule": schedule}
    done = checkpoint.restore(phase, desc, batches, **state)
    progress = tqdm(range(done, phase.steps), initial=done, total=phase.steps, mininterval=30, desc=desc)
    for step in progress:
        pictures, texts = batches()
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt")
        pixels = ((pictures - mean) / std).contiguous(memory_format=torch.channels_last)
        image = model.encode_image(pixels, normalize=True)
        text = F.normalize(text_tower(text_tower.embed(tokens["input_ids"]), tokens["input_ids"]), dim=-1)
        logits = model.logit_scale.exp() * image @ text.T
        target = torch.arange(len(logits))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == phase.steps:
            checkpoint.save(desc, step + 1, batches, **state)


def print_accuracy(folder: Path) -> None:
    """Zero-shot top-1 of every style on fresh pictures of the validation seed, percent."""
    clip = load_clip(str(folder))
    classes = clip.encode_text([f"a photo of a {name}." for name in OBJECTS])
    for style in TEST_STYLES:
        pictures, labels = classification_images(style, per_class=4, seed=VALIDATION_SEED)
        features = torch.cat([clip.encode_image(clip.prepare(p)) for p in pictures.split(100)])
        accuracy = (features @ classes.T).argmax(dim=-1).eq(labels).float().mean().item()
        print(f"{style:10s} {100 * accuracy:5.1f}  (n = {len(labels)})")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, help="of each phase, fewer or more than the recipe's")
    parser.add_argument("--compile", action="store_true", help="torch.compile the image tower (needs a C++ compiler)")
    parser.add_argument("--output", type=Path, help="default: assets/demo-MODEL")
    args = parser.parse_args()
    folder = args.output or ASSETS / f"demo-{args.model}"
    started = time.perf_counter()
    torch.set_grad_enabled(True)
    train(args.model, args.steps, folder, compiled=args.compile)
    print(f"{args.model}: {time.perf_counter() - started:.0f} s, {folder}")
    with torch.no_grad():
        print_accuracy(folder)
