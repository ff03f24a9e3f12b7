import argparse
import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from rlcf.clip.loading import load_clip
from rlcf.clip.unpickle import Unread
from rlcf.clip.weights import build_to_fit, read_weights, require_finite, tensors_in
from rlcf.errors import UserError
from tests.tools import OPENAI_TEXT, VIT, build_clip, same

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore:.*is deprecated")

SIZES = {"input_resolution": 32, "context_length": 77, "vocab_size": 49408}


class OpenAI(nn.Module):
    """A CLIP as OpenAI traced its own: fp16, three numbers as buffers, and no causal mask among the weights."""

    def __init__(self):
        super().__init__()
        clip = build_clip(vision=VIT, text=OPENAI_TEXT, seed=3, quick_gelu=True)
        open_clip.model.convert_weights_to_fp16(clip)
        del clip.attn_mask
        for name, child in clip.named_children():
            self.add_module(name, child)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, number in SIZES.items():
            self.register_buffer(name, torch.tensor(number))

    def forward(self, x):
        for part in (self.visual, self.token_embedding, self.ln_final, self.transformer):
            for weights in part.parameters():
                x = x + weights.float().sum()
        numbers = self.input_resolution + self.context_length + self.vocab_size
        return x * self.logit_scale + self.positional_embedding.sum() + self.text_projection.float().sum() + numbers


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 3)
        self.register_buffer("turned", torch.arange(6).half().view(2, 3).t())
        self.words, self.number = ["a", "b"], 4

    def forward(self, x):
        return self.inner(x).sum() + self.turned.sum() + len(self.words) + self.number


class Writing(nn.Module):
    """A module whose archive writes a file when torch.jit.load loads it."""

    def __init__(self, file):
        super().__init__()
        self.file, self.weight = file, nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self):
        return self.file, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.file = state[0]
        self.weight = state[1]
        self.training = state[2]
        torch.save(self.weight, self.file)

    def forward(self, x):
        return x + self.weight


class Looping(Writing):
    """A module whose archive is never loaded."""

    @torch.jit.export
    def __setstate__(self, state: tuple[str, torch.Tensor, bool]):
        self.file = state[0]
        self.weight = state[1]
        self.training = state[2]
        while self.training == state[2]:
            self.weight = self.weight + 1


@pytest.fixture
def archive(tmp_path):
    """The file of a TorchScript archive."""

    def write(module, *inputs):
        file = tmp_path / "archive.pt"
        scripted = torch.jit.trace(module, inputs, check_trace=False) if inputs else torch.jit.script(module)
        scripted.save(str(file))
        return file

    return write


# ---- TorchScript archives ----


def test_an_archive_in_openais_layout_gives_what_torch_loads_from_it_bit_for_bit(archive):
    file = archive(OpenAI(), torch.zeros(1))
    expected, found = torch.jit.load(str(file)).state_dict(), read_weights(file)
    assert same(found, expected) and len(found) > 50
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in expected.items()}
    assert {value.dtype for value in found.values()} == {torch.float16, torch.float32, torch.int64}


def test_an_archive_in_openais_layout_is_loaded_as_a_clip(archive):
    model = OpenAI()
    backbone = load_clip(str(archive(model, torch.zeros(1))))
    assert torch.equal(backbone.model.visual.proj, model.visual.proj.float())
    assert backbone.encode_text(["a dog"]).isfinite().all()


def test_a_scripted_archive_gives_what_torch_loads_from_it(archive):
    file = archive(Plain())
    assert same(read_weights(file), torch.jit.load(str(file)).state_dict())


@pytest.mark.parametrize("kind", [Writing, Looping])
def test_the_code_of_an_archive_is_not_run(kind, archive, tmp_path, caplog):
    caplog.set_level(logging.INFO, "rlcf")
    root = nn.Sequential(nn.Linear(1, 1), kind(str(tmp_path / "made")))
    file = archive(root)
    assert not (tmp_path / "made").exists()
    assert read_weights(file).keys() == {"0.weight", "0.bias"}
    assert not (tmp_path / "made").exists()
    assert f"archive.pt: left unread: __torch__.{__name__}.{kind.__name__}" in caplog.text


def test_the_archive_of_this_test_would_write_a_file(archive, tmp_path):
    file = archive(Writing(str(tmp_path / "made")))
    torch.jit.load(str(file))
    assert (tmp_path / "made").exists()


# ---- other objects beside the tensors ----


class Namespace(argparse.Namespace):
    pass


@pytest.mark.parametrize("zipped", [True, False])
def test_other_objects_are_left_unread_and_named_in_the_log(zipped, tmp_path, caplog):
    caplog.set_level(logging.INFO, "rlcf")
    model = build_clip(vision=VIT, text=OPENAI_TEXT, quick_gelu=True)
    beside = {
        "args": argparse.Namespace(lr=1),
        "folder": Path("/runs"),
        "best": np.float64(0.5),
        "schedule": Namespace(inner=[Namespace()]),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(3, device="meta"),
        "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 1, torch.qint8),
    }
    told = {"epoch": 3, "name": "run", "losses": [0.5, 1e10], "flags": (True, None)}
    file = tmp_path / "model.pt"
    weights = model.state_dict() | {
        name: torch.tensor(32)
        for name in ("input_resolution", "context_length", "vocab_size")  # OpenAI's mark
    }
    torch.save({"state_dict": weights, **told, **beside}, file, _use_new_zipfile_serialization=zipped)
    held = read_weights(file)
    assert same(held["state_dict"], weights)
    assert {name: held[name] for name in told} == told
    assert all(isinstance(held[name], Unread) for name in beside)
    for name in ("argparse.Namespace", "pathlib.PosixPath", f"{__name__}.Namespace", "torch._utils._rebuild_qtensor"):
        assert name in caplog.text
    assert torch.equal(load_clip(str(file)).model.visual.proj, model.visual.proj)


def test_the_tensors_of_a_checkpoint_are_found_whatever_wraps_them():
    weight = torch.ones(1)
    wrapped = [{"module.a": weight}, {"state_dict": {"a": weight}, "b": weight}, {"state_dict": "text", "a": weight}]
    wrapped += [{"_orig_mod.a": weight}, {"module._orig_mod.a": weight}, {"_orig_mod.module.a": weight}]
    wrapped += [{"model": {"a": weight}}, {"model_state_dict": {"module.a": weight}, "epoch": 3}]
    wrapped += [{"model": {"state_dict": {"a": weight}}, "optimizer": {"state": {}}}]
    wrapped += [
        {"ema": {"a": weight}},
        {"model": {"a": weight}, "model_ema": {"b": weight}},
        {"net": {"module.a": weight}},
    ]
    wrapped += [{"state_dict": {"model.a": weight}, "hyper_parameters": {}}, {"clip.a": weight}]
    for held in wrapped:
        assert list(tensors_in(held)) == ["a"]
    assert list(tensors_in({"model.a": weight, "my.module.b": weight})) == ["model.a", "my.module.b"]
    assert tensors_in([weight]) == tensors_in(Unread("x")) == tensors_in({"a": "text"}) == {}


# ---- models that do not fit ----


def test_a_big_model_is_not_built_for_small_weights():
    with pytest.raises(ValueError, match=r"a model of 1,000,001,000,000 numbers for weights of 1"):
        build_to_fit(lambda: nn.Linear(10**6, 10**6), {"w": torch.ones(1)})
    assert build_to_fit(lambda: nn.Linear(2, 2), {}).weight.device.type == "cpu"


def test_a_checkpoint_of_a_few_kilobytes_that_describes_terabytes_is_told(tmp_path):
    weights = build_clip(vision=VIT, text=OPENAI_TEXT, quick_gelu=True).state_dict()
    torch.save(weights | {"ln_final.weight": torch.ones(2**20)}, tmp_path / "wide.pt")
    torch.save(weights | {"positional_embedding": torch.ones(2**20, 1)}, tmp_path / "long.pt")
    for name in ("wide.pt", "long.pt"):
        with pytest.raises(UserError, match=f"{name} is no complete CLIP checkpoint"):
            load_clip(str(tmp_path / name))


# ---- numbers that are none ----


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_told_with_their_file_and_name(number, tmp_path):
    weights = build_clip(vision=VIT, text=OPENAI_TEXT, quick_gelu=True).state_dict()
    weights["ln_final.bias"] = weights["ln_final.bias"].clone()
    weights["ln_final.bias"][3] = number
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"the weights ln_final.bias of .*model.pt are not finite"):
        load_clip(str(tmp_path / "model.pt"))


def test_whole_numbers_are_finite():
    require_finite("x", {"a": torch.tensor(3), "b": torch.tensor([True]), "c": torch.empty(0)})
    require_finite("x", {"eight bits": torch.ones(2).to(torch.float8_e4m3fn)})


# ---- damage ----


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file of each kind."""
    folder = tmp_path_factory.mktemp("whole")
    content = {"state_dict": {"a": torch.arange(30.0), "b": torch.ones(3, 2).half()}, "lr": [1, 2.5], "args": Path("x")}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.jit.script(Plain()).save(str(folder / "script.pt"))
    save_file({"a": torch.arange(30.0), "b": torch.ones(3, 2).half()}, folder / "plain.safetensors")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def damage(content, data):
    """Bytes with some changed, cut, repeated or swapped for other pickle instructions."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(content) - 1, 0)))
        length = data.draw(st.integers(1, 8))
        kind = data.draw(st.sampled_from(["set", "cut", "repeat", "insert", "large"]))
        if kind == "set":
            content[place : place + 1] = bytes([data.draw(st.integers(0, 255))])
        elif kind == "cut":
            del content[place : place + length]
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * data.draw(st.integers(1, 3))
        elif kind == "insert":
            content[place:place] = bytes([data.draw(st.sampled_from(b"]}()RbQN02"))])
        else:
            content[place : place + 4] = b"\xff\xff\xff\x7f"
    return bytes(content)


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt", "script.pt", "plain.safetensors"])
@hypothesis_settings(max_examples=100)
@given(data=st.data())
def test_a_damaged_file_is_read_or_told(name, data, whole, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    file.write_bytes(damage(whole[name], data))
    try:
        tensors_in(read_weights(file))
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["zip.pt", "script.pt"])
@hypothesis_settings(max_examples=100)
@given(data=st.data())
def test_an_archive_whose_pickle_is_damaged_is_read_or_told(name, data, whole, tmp_path_factory):
    """The archive around it is whole, as a forger would make it."""
    file = tmp_path_factory.getbasetemp() / f"forged-{name}"
    with zipfile.ZipFile(io.BytesIO(whole[name])) as opened, zipfile.ZipFile(file, "w") as out:
        for record in opened.namelist():
            content = opened.read(record)
            out.writestr(record, damage(content, data) if record.endswith("/data.pkl") else content)
    try:
        tensors_in(read_weights(file))
    except UserError as error:
        assert "\n" not in str(error)
