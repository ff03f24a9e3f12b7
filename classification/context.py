"""The context that prompt tuning starts from: words, random vectors, or a CoOp checkpoint."""

from pathlib import Path

import torch
from torch import Tensor

from rlcf.clip.backbone import Backbone
from rlcf.clip.text_tower import TextTower, word_tokens
from rlcf.clip.weights import read_weights, require_finite, tensors_in
from rlcf.errors import UserError


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
        return read_coop(Path(context).expanduser(), tower.width).to(clip.device)
    clip.tokenize([prompt])
    ids = word_tokens(clip.tokenizer, prompt.replace("_", " "))
    if not ids:
        raise UserError("--prompt has no words to start the context from; use --context random")
    with torch.no_grad():
        return tower.embed(torch.tensor(ids, device=clip.device)).detach().clone()


COOP_FILES = ("prompt_learner/model.pth.tar-50", "prompt_learner/model-best.pth.tar", "model-best.pth.tar")


def read_coop(path: Path, width: int) -> Tensor:
    """The context of a CoOp checkpoint, a file or its folder: (n_ctx, width).

    Raises UserError for anything else, and for a context that is not finite.
    """
    if path.is_dir():
        found = [path / name for name in COOP_FILES if (path / name).is_file()]
        if not found:
            raise UserError(f"{path} is no CoOp checkpoint folder; it needs {' or '.join(COOP_FILES[:2])}")
        path = found[0]
    context = tensors_in(read_weights(path)).get("ctx")
    if context is None or context.dim() != 2 or not len(context):
        raise UserError(f"{path} is no CoOp checkpoint: it needs state_dict['ctx'] of shape (n_ctx, width)")
    if context.shape[1] != width:
        raise UserError(
            f"the CoOp context of {path} is {context.shape[1]} wide, the student's text tower {width}; use the "
            "checkpoint that was trained with this student"
        )
    require_finite(path, {"ctx": context})
    return context.float()
