"""A run folder, and the records of a dataset in it."""

import pytest
import torch
from torch import nn

from rlcf.adapt.episode import Episodes
from rlcf.adapt.optimiser import AdamW
from rlcf.run.run import Run
from rlcf.run.settings import Config
from rlcf.run.shard import Shard

IDS = [f"{letter}.png" for letter in "abcdefgh"]
"""Of the samples of dataset "d"."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def begin(folder):
    """Starts or continues a run; returns its records of dataset "d".

    buffer: the momentum of episodes over one weight, which are the memory of the run.
    """

    def start(arrays=None, shard=None, buffer=None, described=None, ids=IDS, **settings):
        memory = Episodes({"p": nn.Parameter(torch.zeros(1))}, AdamW(lr=0.1), 1, momentum=buffer)
        run = Run(Config(output=str(folder), **settings), shard or Shard())
        return run.records("d", ids, memory if buffer else None, arrays, described)

    return start
