"""Train the embedded language model from nothing: the OPT architecture, on captions of scenes.

    OMP_WAIT_POLICY=PASSIVE python -m demo.train_language_model

writes assets/demo-lm and prints the perplexity on scenes that were never trained on. scripts/train_demo_captioner.sh
calls it and then trains the embedded captioners.

The model reads several captions of one scene one after another, each between BOS and EOS. So it learns to say again
what was said before, which is what a captioner's prefix needs of a language model that stays frozen.
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.train_language_model")

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from tqdm import tqdm
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from demo.scenes import COLOURS, SCENE_OBJECTS, Scene, sample_scene, scene_captions
from rlcf.run.parser import Parser
from rlcf.shipped import ASSETS

STEPS, SEED, BATCH, LR = 2000, 31, 64, 2e-3
WIDTH, LAYERS, HEADS, POSITIONS = 128, 3, 4, 160
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def build_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer of the scenes' captions, saved to the folder."""
    names = range(len(SCENE_OBJECTS))
    scenes = [Scene(i, (i + 1) % len(names), r, c) for i in names for r in range(4) for c in COLOURS]
    words = sorted({word for scene in scenes for caption in scene_captions(scene) for word in caption.split()})
    ids = {word: i for i, word in enumerate([*SPECIAL.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **SPECIAL)
    fast.save_pretrained(folder)
    return fast


def build_model(tokenizer: Any) -> OPTForCausalLM:
    torch.manual_seed(SEED)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            word_embed_proj_dim=WIDTH,
            ffn_dim=4 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=POSITIONS,
            dropout=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def documents(tokenizer: Any, rng: np.random.Generator, count: int, held_out: bool) -> tuple[Tensor, Tensor]:
    """Each a scene's five captions in random order, BOS and EOS around each: ids and mask, (count, L)."""
    rows = []
    for _ in range(count):
        captions = scene_captions(sample_scene(rng, held_out))
        rng.shuffle(captions)
        texts = tokenizer(captions, add_special_tokens=False)["input_ids"]
        rows.append([i for ids in texts for i in (tokenizer.bos_token_id, *ids, tokenizer.eos_token_id)])
    length = max(map(len, rows))
    padded = [[*row, *[tokenizer.pad_token_id] * (length - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor(mask)


def loss_of(model: OPTForCausalLM, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of the tokens, a scalar, nats."""
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    return nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100))


def train(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(folder)
    model = build_model(tokenizer)
    rng = np.random.default_rng(SEED)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimiser, min(100, steps // 10), steps)
    progress = tqdm(range(steps), mininterval=30, desc="language model")
    for _ in progress:
        loss = loss_of(model, *documents(tokenizer, rng, BATCH, held_out=False))
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval().half().save_pretrained(folder)
    with torch.no_grad():
        held_out = loss_of(model.float(), *documents(tokenizer, rng, 512, held_out=True))
    print(f"perplexity on held-out scenes {held_out.exp().item():.3f}")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--output", type=Path, default=ASSETS / "demo-lm")
    args = parser.parse_args()
    started = time.perf_counter()
    train(args.output, args.steps)
    print(f"language model: {time.perf_counter() - started:.0f} s, {args.output}")
