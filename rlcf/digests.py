"""Digests, which tell whether contents are the same."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def digest_of(content: Any) -> str:
    """A digest of texts, numbers, lists and dicts, 64 characters."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_tensors(tensors: "Mapping[str, Tensor]") -> str:
    """A digest of tensors and their names, 64 characters. It takes about a second a GB."""
    import torch  # whoever has tensors has imported it

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_state(content: Any) -> str:
    """A digest of dicts, lists, texts and numbers with tensors among them, 64 characters.

    Raises RecursionError for what is nested without end.
    """
    import torch

    seen = dict[int, str]()

    def reduced(value: Any) -> Any:
        """A digest in place of a container or a tensor. One that stands in many places is read once."""
        if not isinstance(value, dict | list | tuple | torch.Tensor):
            return value
        if id(value) not in seen:
            if isinstance(value, torch.Tensor):
                seen[id(value)] = digest_of_tensors({"": value})
            else:
                parts = value.items() if isinstance(value, dict) else enumerate(value)
                seen[id(value)] = digest_of([[repr(key), reduced(part)] for key, part in parts])
        return seen[id(value)]

    return digest_of(reduced(content))
