"""A folder's tokenizer by the library `tokenizers` alone: `transformers` takes a second to import, and adds nothing."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, get_clean_fn
from tokenizers import Tokenizer

from rlcf.inputs.json_files import read_json

PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of `transformers` that do what a tokenizer.json says, and no more."""
NAMED = {"backend", "bos_token", "eos_token", "pad_token", "tokenizer_class", "unk_token"}
"""Keys of their tokenizer_config.json that do not change the token ids; `model_max_length`, a number, is another."""


class FileTokenizer(HFTokenizer):
    """open_clip's wrapper of a tokenizer.json.

    padding: the token that texts are padded with; unknown: that of words which are not in the vocabulary, or None.
    """

    def __init__(self, file: Path, context_length: int, padding: str, unknown: str | None) -> None:
        self.tokenizer_mode, self.strip_sep_token = "", False
        self.context_length, self.clean_fn = context_length, get_clean_fn("whitespace")
        self.tokenizer = _Encoder(file, padding, unknown)


class _Encoder:
    """Has the methods and attributes of a tokenizer of `transformers` that this project and open_clip use."""

    def __init__(self, file: Path, padding: str, unknown: str | None) -> None:
        self.backend_tokenizer: Any = Tokenizer.from_file(str(file))
        self.unk_token_id = None if unknown is None else self.backend_tokenizer.token_to_id(unknown)
        self.padding = {"pad_token": padding, "pad_id": self.backend_tokenizer.token_to_id(padding)}
        if self.padding["pad_id"] is None:
            raise ValueError(f"its padding {padding!r} is no token of it")

    def __call__(
        self, texts: str | list[str], add_special_tokens: bool = True, max_length: int | None = None, **_: Any
    ) -> SimpleNamespace:
        """Returns token ids as `input_ids`: a list for one text, a tensor (N, max_length) for a list of texts."""
        tokenizer = self.backend_tokenizer
        if isinstance(texts, str):
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return SimpleNamespace(input_ids=tokenizer.encode(texts, add_special_tokens=add_special_tokens).ids)
        tokenizer.enable_truncation(max_length)
        tokenizer.enable_padding(length=max_length, **self.padding)
        found = tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)
        return SimpleNamespace(input_ids=torch.tensor([text.ids for text in found]))

    def num_special_tokens_to_add(self) -> int:
        """The number of tokens that are put around a text."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(is_pair=False))


def file_tokenizer(folder: Path, text_cfg: Mapping[str, Any]) -> FileTokenizer | None:
    """The tokenizer of a folder, or None where `transformers` is needed. text_cfg: of its open_clip config.

    Raises many kinds of exceptions for a damaged one.
    """
    file, settings = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not text_cfg.get("hf_tokenizer_name") or text_cfg.get("tokenizer_kwargs") or text_cfg.get("tokenizer_mode"):
        return None
    held = read_json(settings) if file.is_file() and settings.is_file() else None
    if not isinstance(held, dict) or not isinstance(held.pop("model_max_length", 0), int | float):
        return None
    named = held.keys() <= NAMED and all(isinstance(value, str) for value in held.values())
    if not named or held.get("tokenizer_class") not in PLAIN or "pad_token" not in held:
        return None
    length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    return FileTokenizer(file, length, held["pad_token"], held.get("unk_token"))
