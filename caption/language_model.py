"""The frozen language model: loaded by name or folder, it tells how likely a caption is after a prefix."""

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache, GenerationConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from caption.files import require_language_model
from rlcf.clip.backbone import autocast
from rlcf.clip.weights import build_to_fit, require_finite
from rlcf.errors import UserError
from rlcf.linear import linear, use_linear
from rlcf.shipped import shipped_folder

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")


MOST_LAYERS = 1000
"""Layers of a language model."""


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model in eval mode whose parameters ask for no gradients, and its tokenizer.

    bos: the token that stands between prefix and caption; stops: those at which a caption ends (newline, end of text);
    precision: "fp32", or "bf16" / "fp16" autocast.
    """

    model: Any
    tokenizer: Any
    bos: int
    stops: tuple[int, ...]
    device: torch.device
    precision: str = "fp32"

    @property
    def width(self) -> int:
        """Of the token embeddings, and so of the prefix."""
        return self.model.get_input_embeddings().embedding_dim

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(self.device, self.precision)

    @property
    def pad(self) -> int:
        """The token that fills the right of shorter captions; the mask tells it from text."""
        return self.stops[-1] if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions as they are learnt from: BOS, then the text. Returns ids and mask (1: text), both (N, L)."""
        rows = [[self.bos, *ids] for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]
        return self.pad_rows(rows)

    def pad_rows(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Rows of token ids, padded on the right: ids and mask, both (N, L)."""
        length = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.pad] * (length - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.device)
        return ids, mask

    def read(self, prefix: Tensor) -> tuple[Tensor, DynamicCache]:
        """prefix: (N, P, width). Returns the logits that follow it, (N, 1, V), and its keys and values."""
        only_last = {"logits_to_keep": 1} if "logits_to_keep" in self._parameters else {}
        with self.autocast():
            out = self.model(inputs_embeds=prefix, use_cache=True, **only_last)
        return out.logits[:, -1:], out[self.cache_name]

    def token_log_likelihood(self, prefix: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """Log-probability of each token given what stands before it; with a graph where gradients are on.

        prefix: (N, P, width), each read once and shared by K captions in a row. ids, mask: (N * K, L) from `tokenize`.
        Returns (N * K, L), nats; where the mask is 0, that of the padding.
        """
        logits, cache = self.read(prefix)
        if len(prefix) < len(ids):
            each = len(ids) // len(prefix)
            logits, cache = logits.repeat_interleave(each, dim=0), repeat_cache(cache, each)
        if ids.shape[1] > 1:
            seen = torch.cat([mask.new_ones(len(ids), prefix.shape[1]), mask[:, :-1]], dim=1)
            with self.autocast():
                out = self.model(input_ids=ids[:, :-1], attention_mask=seen, use_cache=True, **{self.cache_name: cache})
            logits = torch.cat([logits, out.logits], dim=1)
        # Flat: torch has deterministic kernels for CUDA where the loss has one dimension.
        return -F.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)

    @cached_property
    def cache_name(self) -> str:
        """The argument that this version of transformers takes a model's keys and values by."""
        return "cache" if "cache" in self._parameters else "past_key_values"

    @cached_property
    def _parameters(self) -> Any:
        return inspect.signature(self.model.forward).parameters


def repeat_cache(cache: DynamicCache, count: int) -> DynamicCache:
    """A copy in which each row stands `count` times in a row."""
    repeated = DynamicCache()
    for index, layer in enumerate(cache.layers):
        keys, values = (part.repeat_interleave(count, dim=0) for part in (layer.keys, layer.values))
        repeated.update(keys, values, index)
    return repeated


def load_language_model(
    name: str, device: str | torch.device = "cpu", precision: str = "fp32", weights: dict[str, Tensor] | None = None
) -> LanguageModel:
    """Load a language model and freeze it.

    name: a Hugging Face name, a folder, or the name of a shipped model; weights: a checkpoint's own, used instead of
    the folder's, which then may hold config and tokenizer only.
    Raises UserError naming what is missing, unknown or damaged, and weights that are not finite.
    """
    device = torch.device(device)
    require_language_model(name)
    folder = Path(name).expanduser()
    folder = folder if folder.is_dir() else shipped_folder(name) or folder
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if folder.is_dir() and not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise UserError(f"{name} holds no tokenizer ({', '.join(TOKENIZER_FILES[:3])}); copy the model's own into it")
    tokenizer = _load(AutoTokenizer, name, folder, "tokenizer")
    if folder.is_dir() and (folder / "config.json").is_file():
        layers = getattr(_load(AutoConfig, name, folder, "config.json"), "num_hidden_layers", 0)
        if not isinstance(layers, int) or layers > MOST_LAYERS:  # building them would never end
            raise UserError(
                f"the config.json of the language model {name} has {layers!r:.40} layers; give a whole model"
            )
    model = _build(name, folder, weights) if weights else _pretrained(name, folder)
    require_finite(f"the language model {name}", dict(model.named_parameters()))
    model.generation_config = GenerationConfig()  # how captions are made is told by the run's config, not the folder's
    model = model.float().eval().requires_grad_(False).to(device)
    use_linear(model)
    _use_linear_in_gpt2(model)
    bos, eos = (getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos"))
    bos = eos if bos is None else bos
    try:
        stops = [*_newline(tokenizer), *([] if eos is None else [eos])]
        tokens = 1 + max(tokenizer.get_vocab().values())
    except Exception as error:  # tokenizers raise many kinds
        raise UserError(_cannot_load(name, folder, "tokenizer", error)) from error
    known = model.get_input_embeddings().num_embeddings
    if tokens > known:
        raise UserError(f"the tokenizer of {name} is another model's: it has {tokens} tokens, the model {known}")
    if bos is None or not stops:
        raise UserError(f"the tokenizer of {name} has neither a BOS nor an EOS token; use a model that has one")
    return LanguageModel(model, tokenizer, bos, tuple(stops), device, precision)


class _Conv1D(Conv1D):
    """GPT-2's linear layer, whose weight is (C, D), by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C). Returns (..., D)."""
        return linear(x, self.weight.T, self.bias)


def _use_linear_in_gpt2(model: Any) -> None:
    for layer in model.modules():
        if type(layer) is Conv1D:
            layer.__class__ = _Conv1D


def _load(kind: Any, name: str, folder: Path, what: str, **settings: Any) -> Any:
    """The result of `kind.from_pretrained` for the folder, or for the name where there is none.

    what: its name in errors. Raises UserError when it cannot be loaded.
    """
    try:
        return kind.from_pretrained(str(folder) if folder.is_dir() else name, trust_remote_code=False, **settings)
    except Exception as error:  # transformers and its download libraries raise many kinds
        raise UserError(_cannot_load(name, folder, what, error)) from error


def _pretrained(name: str, folder: Path) -> Any:
    model, info = _load(AutoModelForCausalLM, name, folder, "weights", output_loading_info=True)
    if info["missing_keys"]:
        raise UserError(f"the weights of {name} lack {sorted(info['missing_keys'])[0]}; they are another model's")
    return model


def _build(name: str, folder: Path, weights: dict[str, Tensor]) -> Any:
    """The architecture that `name` describes, with a checkpoint's weights."""
    config = _load(AutoConfig, name, folder, "config.json")
    embeddings = [value for key, value in weights.items() if key.endswith(("embed_tokens.weight", "wte.weight"))]
    head = weights.get("lm_head.weight")
    if embeddings and head is not None and not torch.equal(embeddings[0], head):
        config.tie_word_embeddings = False  # some published checkpoints carry a head of their own
    try:
        model = build_to_fit(lambda: AutoModelForCausalLM.from_config(config, trust_remote_code=False), weights)
        model.load_state_dict(weights, strict=False)
        missing = model.state_dict().keys() - weights.keys() - set(getattr(model, "_tied_weights_keys", None) or ())
        if missing:
            raise ValueError(f"the checkpoint lacks {min(missing)}")
    except Exception as error:  # a config may describe what a model does not expect
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"the checkpoint's language model is not the one that {name} describes ({reason})") from error
    return model


def _cannot_load(name: str, folder: Path, what: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            return f"{name} is no language model's folder: it holds no config.json"
        return f"the {what} of the language model {name} cannot be loaded ({reason})"
    return (
        f"the language model {name} could not be downloaded or read ({reason}); give a folder that holds its "
        "config.json, weights and tokenizer"
    )


def _newline(tokenizer: Any) -> list[int]:
    """The token of a line's end, where the vocabulary has one."""
    ids = tokenizer("\n", add_special_tokens=False)["input_ids"]
    return ids[-1:] if ids and tokenizer.decode(ids[-1:]) == "\n" else []
