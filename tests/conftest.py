"""Fixtures of the whole suite. Plain helpers are in tools.py beside it."""

import copy
import dataclasses
import json
import signal
import sys

import pytest
import torch
from hypothesis import settings

from rlcf.clip.loading import load_clip
from rlcf.run.folder import logger
from rlcf.run.records import Records
from tests.tools import OPENAI_TEXT, RESNET, VIT, build_clip, write_pictures

# A suite that was started in the background, or with nohup, ignores these.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("rlcf", deadline=None, derandomize=True, max_examples=40, database=None)
settings.load_profile("rlcf")


@pytest.fixture(autouse=True)
def seed():
    """Each test draws the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Models this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nothing_left_behind(one_thread):
    """Puts back torch's threads, Python's search path and a run's log after each test."""
    threads, path, propagates = torch.get_num_threads(), sys.path[:], logger.propagate
    yield
    torch.set_num_threads(threads)
    sys.path[:] = path
    logger.propagate = propagates
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="session", autouse=True)
def records_are_of_their_kinds():
    """Every record that a test writes would be taken up again: its values are of the kinds that its task tells."""
    add = Records.add

    def checked(self, record, arrays=None):
        add(self, record, arrays)
        assert self.keeper.fits(json.loads(json.dumps(record)), b""), record

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Records, "add", checked)
        yield


@pytest.fixture
def plant(tmp_path):
    """Writes 8 x 8 pictures at these paths below tmp_path/data, and makes folders of paths that end in '/'."""
    return lambda *paths: write_pictures(tmp_path / "data", paths)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The file of a tiny random CLIP in OpenAI's layout, "vit" (32 px) or "resnet" (64 px)."""
    folder = tmp_path_factory.mktemp("clips")

    def write(kind="vit"):
        file = folder / f"{kind}.pt"
        if not file.exists():
            vision = {"vit": VIT, "resnet": RESNET | {"image_size": 64}}[kind]
            torch.save(build_clip(vision=vision, text=OPENAI_TEXT, seed=1, quick_gelu=True).state_dict(), file)
        return file

    return write


@pytest.fixture(scope="session")
def load_once():
    """Loads a CLIP by its name or path once, and gives a fresh copy of it each time."""
    loaded = {}

    def load(name):
        if name not in loaded:
            loaded[name] = load_clip(name)
        return dataclasses.replace(loaded[name], model=copy.deepcopy(loaded[name].model))

    return load


@pytest.fixture(scope="session")
def clip(checkpoint, load_once):
    """A fresh tiny CLIP, "vit" or "resnet"."""
    return lambda kind="vit": load_once(str(checkpoint(kind)))


@pytest.fixture(scope="session")
def demo_clip(load_once):
    """A fresh shipped model."""
    return lambda name="demo-student": load_once(name)
