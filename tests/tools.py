"""Plain helpers of the tests: tiny CLIPs, tiny pictures, runs that are broken off, and what a run leaves behind.

`from tests.tools import Results`. Fixtures of several folders are in conftest.py beside it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from rlcf.adapt import groups
from rlcf.clip.backbone import Backbone
from rlcf.errors import run_main
from rlcf.run.lock import FolderLock
from rlcf.run.parts import Part
from rlcf.run.records import Records

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
CPU = torch.device("cpu")

# ---- tiny CLIPs ----

VIT = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 2, "head_width": 64}
RESNET = {"image_size": 32, "patch_size": None, "width": 2, "layers": [1, 1, 1, 1], "head_width": 64}
OPENAI_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
SHORT_TEXT = OPENAI_TEXT | {"context_length": 16, "vocab_size": 100, "heads": 2}
FOLDER_MODEL = {"embed_dim": 16, "vision_cfg": VIT, "text_cfg": SHORT_TEXT}
SIGLIP_TEXT = SHORT_TEXT | {
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
}
VOCABULARY = ". a an the of photo and big very old dog cat bird sea lion sailing ship"
"""The words of `word_tokenizer`."""


def build_clip(kind=open_clip.CLIP, vision=VIT, text=SHORT_TEXT, seed=0, **settings):
    """A tiny random CLIP of open_clip's configs. Its text features vary strongly with the text."""
    torch.manual_seed(seed)
    model = kind(embed_dim=16, vision_cfg=dict(vision), text_cfg=dict(text), **settings)
    tower = getattr(model, "text", model)
    for parameter in (tower.token_embedding.weight, tower.positional_embedding):
        nn.init.normal_(parameter, std=0.5)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.running_mean, -0.1, 0.1)
            nn.init.uniform_(layer.running_var, 0.05, 0.15)
    return model.eval().requires_grad_(False)


def scripted(state_dict):
    """A TorchScript module with these names."""
    root = nn.Identity()
    for key, value in state_dict.items():
        *path, leaf = key.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Identity())
            module = module.get_submodule(part)
        module.register_buffer(leaf, value)
    return torch.jit.script(root)


def as_clip(model, name="tiny", tokenizer=None, size=32):
    """A `Backbone` of a model."""
    grey = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return Backbone(name, model, tokenizer, {"size": size, **grey}, CPU)


def word_tokenizer(end=1, padding=1, length=16):
    """A tokenizer as open_clip wraps Hugging Face's: a number a word of `VOCABULARY`, the end of text, padding.

    With the same end and padding it is of SigLIP's kind.
    """
    ids = {word: number for number, word in enumerate(VOCABULARY.split(), start=2)}

    def encode(text, add_special_tokens=True):
        numbers = [ids[word] for word in text.replace(".", " .").split()]
        return SimpleNamespace(input_ids=numbers + [end] * add_special_tokens)

    def tokenize(texts):
        rows = [[*encode(text, add_special_tokens=False).input_ids[: length - 1], end] for text in texts]
        return torch.tensor([row + [padding] * (length - len(row)) for row in rows])

    tokenize.tokenizer = encode
    return tokenize


# ---- tensors ----


def same(first, second):
    """True for two dicts of tensors, such as state dicts, that are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def copied(model):
    """A model's state dict, copied."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# ---- pictures ----


def write_picture(file, seed=0, size=(8, 8)):
    """Write a picture of noise, making its folder. size: (width, height). Returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG" if file.suffix == ".png" else "JPEG")
    return file


def write_pictures(root, paths):
    """Write a picture of noise at each path below `root`, and make a folder of each path that ends in '/'."""
    root.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        if str(path).endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            write_picture(root / path, number)
    return root


# ---- runs ----


class Results:
    """The files of a run's folder. Its one dataset is meant where none is named."""

    def __init__(self, folder):
        self.folder = Path(folder)

    @property
    def results(self):
        """The content of results.json."""
        return json.loads((self.folder / "results.json").read_text())

    @property
    def metrics(self):
        """Dataset -> metrics."""
        return self.results["datasets"]

    def logits(self, dataset=None):
        """The matrices of --save-logits: name -> (N, answers)."""
        return load_file(self.folder_of(dataset) / "logits.safetensors")

    def records(self, dataset=None, seconds=False):
        """The records, without the seconds that each took unless they are asked for."""
        lines = (self.folder_of(dataset) / "records.jsonl").read_text().splitlines()
        return [
            {key: value for key, value in json.loads(line).items() if seconds or key != "seconds"} for line in lines
        ]

    def folder_of(self, dataset=None):
        """The folder of a dataset, named as folders are: "folder-blur"."""
        if dataset is not None:
            return self.folder / dataset
        (folder,) = {file.parent for file in self.folder.glob("*/records*")}
        return folder


def break_off_after(count, monkeypatch):
    """Let Ctrl-C come when `count` groups of samples were adapted to. Returns the list of the groups' indices so far.

    count: None for never.
    """
    groups_so_far = []

    def side_by_side(group, adapt):
        if len(groups_so_far) == count:
            raise KeyboardInterrupt
        groups_so_far.append([index for index, _ in group])
        return original(group, adapt)

    original = groups.side_by_side
    monkeypatch.setattr(groups, "side_by_side", side_by_side)
    return groups_so_far


def stop_after_records(count, monkeypatch):
    """Let Ctrl-C come when `count` records were written, also in the middle of a group."""
    written, append = [], Part.append

    def stopping(part, *given):
        append(part, *given)
        written.append(part)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(Part, "append", stopping)


def wait_for(*files, seconds=60):
    """Returns when all files are there. Raises TimeoutError."""
    wait_until(lambda: all(file.exists() for file in files), seconds=seconds)


def wait_until(come, child=None, seconds=60):
    """Waits for what a child of this process is about to do. Returns True when it has come, False when the child has
    ended without it. Raises TimeoutError.

    come: returns whether it has come; child: the process's id, None for no child's.
    """
    until = time.monotonic() + seconds
    while not come():
        if child is not None and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return bool(come())
        if time.monotonic() > until:
            raise TimeoutError("what was waited for has not come")
        time.sleep(0.002)
    return True


def slowed(run, slow, count, folder):
    """A function for `in_processes`: `run`, where process `slow` of `count` is so slow that it keeps its first record
    until the others have nothing left to do.

    Each process leaves the number of its records in `folder`, in the file of its rank.
    """

    def process():
        rank, written, append, finish = int(os.environ["RANK"]), [], Part.append, Records.finish

        def counting(part, *given):
            append(part, *given)
            written.append(part)
            if rank == slow and len(written) == 1:
                wait_for(*(folder / f"{other} is done" for other in range(count) if other != slow))

        def ending(records, *given, **named):
            (folder / str(rank)).write_text(str(len(written)))
            (folder / f"{rank} is done").touch()
            return finish(records, *given, **named)

        Part.append, Records.finish = counting, ending
        run()

    return process


def in_processes(count, run):
    """Call a function in `count` processes that belong together as torchrun's do. Returns their exit codes.

    They are forked, so that nothing is imported again.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        told = {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        children.append(forked(run, {name: str(value) for name, value in told.items()}))
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def forked(run, environment=None):
    """Call a function in a process of its own, as an entry script does. Returns its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ.update(environment or {})
        run_main(run)
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def held(folder):
    """In its body another process holds a run folder. Gives the id of that process."""
    ready, begun = os.pipe()

    def hold():
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
        os.write(begun, b"x")
        time.sleep(600)
        lock.close()

    child = forked(hold)
    os.close(begun)  # so that reading ends with the child
    try:
        assert os.read(ready, 1) == b"x"
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)


def mistake(run, capsys):
    """The sentence that a mistake ends with: the one line behind "error: ", with exit code 2 and nothing printed."""
    with pytest.raises(SystemExit) as stop:
        run_main(run)
    assert stop.value.code == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert printed.out == "" and "Traceback" not in printed.err
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1].removeprefix("error: ")


def run_script(script, *flags, cwd, timeout=300, **environment):
    """Run an entry script as a user does, in a process of its own. script: its path in the checkout."""
    return subprocess.run(
        [sys.executable, str(ROOT / script), *map(str, flags)],
        cwd=cwd,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
