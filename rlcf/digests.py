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
