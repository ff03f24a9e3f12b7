"""The context that prompt tuning starts from: words, random vectors, or a CoOp checkpoint."""

import re
from pathlib import Path

import torch
from torch import Tensor

from rlcf.clip.backbone import Backbone
from rlcf.clip.text_tower import TextTower, word_tokens
from rlcf.clip.weights import read_weights, require_finite, tensors_in
from rlcf.errors import UserError
from rlcf.inputs.places import expanded


def text_tower(clip: Backbone) -> TextTower:
    """The text tower driven by embeddings. Raises UserError for a model whose text tower cannot be."""
    if clip.text_tower is None:
        raise UserError(f"the text tower of {clip.name} cannot be driven by embeddings; use --tune image-encoder")
    return clip.text_tower


def initial_context(clip: Backbone, context: str, n_ctx: int, prompt: str, seed: int) -> Tensor:
    """Starting vectors of prompt tuning, (n_ctx, width).

    context: "words" - the embedding of `prompt`; "random" - n_ctx vectors N(0, 0.02), as CoOp; else the path of a CoOp
    checkpoint. Raises UserError for a file that is none, or of another width.
    """
    tower = text_tower(clip)
    if context == "random":
        generator = torch.Generator().manual_seed(seed)
        return (0.02 * torch.randn(n_ctx, tower.width, generator=generator)).to(clip.device)
    if context != "words":
        return read_coop(Path(expanded(context)), tower.width).to(clip.device)
    clip.tokenize([prompt])
    ids = word_tokens(clip.tokenizer, prompt.replace("_", " "))
    if not ids:
        raise UserError("--prompt has no words to start the context from; use --context random")
    with torch.no_grad():
        return tower.embed(torch.tensor(ids, device=clip.device)).detach().clone()


EPOCH = re.compile(r"model\.pth\.tar-(\d+)")
"""Name of a CoOp checkpoint, with its epoch."""
BEST = "model-best.pth.tar"


def coop_file(folder: Path) -> Path:
    """The CoOp checkpoint of a folder: that of the last epoch, or else the best one.

    It lies in prompt_learner/ or in the folder itself. Raises UserError when there is none.
    """
    for place in (folder / "prompt_learner", folder):
        found = {int(named[1]): file for file in place.glob("model.pth.tar-*") if (named := EPOCH.fullmatch(file.name))}
        if found:
            return found[max(found)]
        if (place / BEST).is_file():
            return place / BEST
    raise UserError(
        f"{folder} is no CoOp checkpoint folder; it needs prompt_learner/model.pth.tar-N, N the epoch, or "
        f"prompt_learner/{BEST}"
    )


def read_coop(path: Path, width: int) -> Tensor:
    """The context of a CoOp checkpoint, a file or its folder: (n_ctx, width).

    Raises UserError for anything else, for contexts of the classes' own, and for a context that is not finite.
    """
    path = coop_file(path) if path.is_dir() else path
    tensors = tensors_in(read_weights(path))
    context = tensors.get("ctx", tensors.get("prompt_learner.ctx"))
    if any("meta_net." in name for name in tensors):
        raise UserError(
            f"{path} is a checkpoint of CoCoOp, whose context changes with the image; give one of CoOp, which has none "
            "of the weights meta_net"
        )
    if context is not None and context.dim() == 3:
        count, n_ctx, _ = context.shape
        raise UserError(
            f"{path} holds class-specific contexts, {n_ctx} vectors for each of {count} classes (CSC True); prompt "
            "tuning here has one context for all classes, so give a CoOp checkpoint that was trained with CSC False"
        )
    if context is None or context.dim() != 2 or not len(context):
        raise UserError(f"{path} is no CoOp checkpoint: it needs state_dict['ctx'] of shape (n_ctx, width)")
    if context.shape[1] != width:
        raise UserError(
            f"the CoOp context of {path} is {context.shape[1]} wide, the student's text tower {width}; use the "
            "checkpoint that was trained with this student"
        )
    require_finite(path, {"ctx": context})
    return context.float()
