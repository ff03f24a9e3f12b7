"""Files and folders of CLIPs."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.tools import build_clip


@pytest.fixture
def save(tmp_path):
    def write(content, name="model.pt", **settings):
        torch.save(content, tmp_path / name, **settings)
        return tmp_path / name

    return write


@pytest.fixture
def folder(tmp_path):
    """A folder as open_clip writes one: config, weights."""

    def write(model, config=None, weights="open_clip_model.safetensors"):
        path = tmp_path / "folder"
        path.mkdir(exist_ok=True)
        if config is not None:
            text = config if isinstance(config, bytes) else json.dumps(config).encode()
            (path / "open_clip_config.json").write_bytes(text)
        if model is not None:
            save_file({k: v.clone() for k, v in model.state_dict().items()}, path / weights)
        return path

    return write


@pytest.fixture
def tiny():
    return build_clip()
