import argparse
import copy
import io
import logging
import pickle
import struct
import zipfile
from collections import OrderedDict
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
from rlcf.clip.unpickle import Unpickler, Unread
from rlcf.clip.weights import CHUNK, build_to_fit, read_weights, require_finite, tensors_in
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


class Stored:
    """A storage of 24 floats, as a pickle refers to it."""

    def __init__(self, key="0", count=24, kind=torch.FloatStorage, name="storage"):
        self.identity = (name, kind, key, "cpu", count)


class View:
    """A tensor, as a pickle tells how to make it."""

    def __init__(self, size, stride, offset=0, stored=None):
        self.about = (stored or Stored(), offset, size, stride, False, OrderedDict())

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.about


class Pickler(pickle._Pickler):
    def persistent_id(self, held):
        return held.identity if isinstance(held, Stored) else None


def pickled(content, protocol=2):
    """A pickle as torch.save writes one, of content with `View`s."""
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(content)
    return stream.getvalue()


NUMBERS = struct.pack("<24f", *range(24))


@pytest.fixture
def written(tmp_path):
    """The file of a zip archive with a pickle, which may refer to 24 floats, and further records."""

    def write(content, compression=zipfile.ZIP_STORED, **records):
        file = tmp_path / "written.pt"
        held = {"data.pkl": content if isinstance(content, bytes) else pickled(content), "data/0": NUMBERS, **records}
        with zipfile.ZipFile(file, "w", compression) as out:
            for name, record in held.items():
                out.writestr(f"top/{name}", record)
        return file

    return write


def refused(file, match=r" is damaged or no weight file .*; download it again$"):
    """True for a file that is refused in one sentence."""
    with pytest.raises(UserError, match=match) as error:
        read_weights(file)
    return str(error.value).startswith(str(file)) and "\n" not in str(error.value)


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


@pytest.mark.parametrize("protocol", range(1, 6))
def test_every_binary_protocol_of_pickle_is_read(protocol, written):
    content = {
        "w": View((2, 3), (3, 1), 1),
        "numbers": [0, 1, 255, 256, 65536, -1, 2**31, 2**70, 1.5, float("inf"), True, False, None],
        "texts": ["", "é", "x" * 300, b"bytes", ("a", ("b", "c", "d", "e"))],
        "dict": {1: {"deep": []}, (1, "a"): OrderedDict(b=2)},
        "sets": [{1}, frozenset([2])],
    }
    held = read_weights(written(pickled(content, protocol)))
    assert torch.equal(held.pop("w"), torch.arange(1.0, 7).view(2, 3))
    content.pop("w")
    if protocol < 4:  # sets are calls
        held.pop("sets"), content.pop("sets")
    else:
        assert held.pop("sets") == [[1], [2]]
        content.pop("sets")
    if protocol < 3:  # bytes are calls
        held["texts"].pop(3), content["texts"].pop(3)
    assert held == content


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


# ---- files that lie ----


@pytest.mark.parametrize(
    "view",
    [
        View((5, 5), (5, 1)),
        View((2, 3), (3, 1), 19),
        View((2, 3), (22, 1)),
        View((-1,), (1,)),
        View((2,), (-1,), 5),
        View((2,), (1,), -1),
        View((2**62, 2**62), (0, 0)),
        View((2**40,), (0,)),
        View((2**64,), (1,)),
        View((2.0,), (1,)),
        View((True,), (1,)),
        View((2, 3), (1,)),
        View("ab", "cd"),
        View(None, None),
        View((1,) * 100, (1,) * 100),
        View((24,), (1,), stored=Stored(count=-1)),
        View((24,), (1,), stored=Stored(count=23)),
        View((25,), (1,), stored=Stored(count=25)),
        View((2**40,), (1,), stored=Stored(count=2**40)),
        View((24,), (1,), stored=Stored(count="24")),
        View((24,), (1,), stored=Stored(key="1")),
        View((24,), (1,), stored=Stored(key=0)),
        View((24,), (1,), stored=Stored(key="../../data/0")),
        View((24,), (1,), stored=Stored(name="module")),
        View((24,), (1,), stored=Stored(name="file")),
        View((24,), (1,), stored=Stored(kind="FloatStorage")),
        View((24,), (1,), stored=[1.0]),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(view, written):
    assert refused(written({"w": view}), r" is damaged or no weight file.*; download it again$")


def test_tensors_that_share_numbers_are_read_unless_they_are_many_times_the_file(written):
    assert torch.equal(read_weights(written({"w": View((1000, 3), (0, 1))}))["w"], torch.arange(3.0).expand(1000, 3))
    assert refused(written({str(i): View((1000, 24), (0, 1)) for i in range(100)}))


def test_a_tensor_or_a_text_in_many_places_counts_in_each(written):
    """Whoever reads the places one by one may copy it each time."""
    one, text = View((1000, 24), (0, 1)), "a" * 100_000
    assert len(read_weights(written({str(i): one for i in range(9)}))) == 9
    assert refused(written({str(i): one for i in range(100)}))
    assert refused(written([one] * 100))
    assert refused(written([text] * 100))
    twice = b"\x80\x02" + pickled(one)[2:-1] + b"2\x86" * 100 + b"."
    assert tensors_in(read_weights(written(twice))) == {}
    state = pickled({"w": one})[2:-1]
    inner = module("Z", state) + b"q\x7f"
    many = b"".join(b"X\x02\0\0\0" + f"{i:02}".encode() + b"h\x7f" for i in range(99))
    assert refused(written(b"\x80\x02" + inner + b"0" + module("A", b"}(" + many + b"u") + b"."))


def test_a_name_of_any_length_is_refused(written):
    for named in (b"c%s\nb\n.", b"(i%s\nb\n."):
        assert refused(written(b"\x80\x02" + named % (b"a" * 10_000)), r"\(a name\)")


def test_an_empty_tensor_is_read(written):
    assert read_weights(written({"w": View((0, 3), (3, 1))}))["w"].shape == (0, 3)


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_compressed_archive_is_refused(how, written):
    assert refused(written({"w": View((24,), (1,))}, how, **{"data/0": b"\0" * 10**7}))


def test_records_of_one_name_are_refused(written):
    file = written({"w": View((24,), (1,))})
    with zipfile.ZipFile(file, "a") as out, pytest.warns(UserWarning, match="Duplicate name"):
        out.writestr("top/data/0", NUMBERS[::-1])
    assert refused(file)


def test_records_that_lie_in_each_other_are_refused(written):
    """Two entries of the directory point at the same numbers, so that together they are larger than the file."""
    views = {key: View((24,), (1,), stored=Stored(key=key)) for key in "01"}
    file = written(views, **{"data/0": b"\0" * 10**6})
    with zipfile.ZipFile(file, "a") as out:
        first = out.getinfo("top/data/0")
        second = copy.copy(first)
        second.filename = "top/data/1"
        out.filelist.append(second)
        out.NameToInfo[second.filename] = second
        out._didModify = True
    assert refused(file, " is damaged or no weight file.*; download it again$")


@pytest.mark.parametrize("record", ["top/data.pkl", "top/data/0"])
def test_numbers_that_were_changed_are_refused(record, written):
    file = written({"w": View((24,), (1,))})
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as opened:
        place = whole.index(opened.read(record))
    file.write_bytes(whole[: place + 40] + bytes([whole[place + 40] ^ 1]) + whole[place + 41 :])
    assert refused(file, " is damaged or no weight file.*; download it again$")


def nested(kind, levels=20_000):
    opening, closing = {
        "list": (b"]", b"a"),
        "dict": (b"}X\x01\0\0\0a", b"s"),
        "tuple": (b"", b"\x85"),
        "object": (b"cx\ny\n)\x81", b"b"),
    }[kind]
    return b"\x80\x02" + opening * levels + b"N" + closing * levels + b"."


@pytest.mark.parametrize("kind", ["list", "dict", "tuple", "object"])
def test_content_that_is_nested_deep_has_no_weights_and_ends_nothing(kind, written):
    assert tensors_in(read_weights(written(nested(kind)))) == {}
    with pytest.raises(UserError, match=r"written.pt (holds a|is no CLIP)"):
        load_clip(str(written(nested(kind))))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        b"\x80\x02}q\x00(X\x01\0\0\0ah\x00u.",  # a dict that holds itself
        b"\x80\x02}r\xff\xff\xff\xff.",  # a memo of four billion places
        b"\x80\x02N" + b"2\x86" * 100 + b".",  # a tuple of two of a tuple of two of ...
    ],
)
def test_content_without_end_is_read_in_no_time(content, written):
    assert tensors_in(read_weights(written(content))) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}N" + b"2\x86" * 100 + b"Ns.",  # such a tuple as a key, whose hash takes for ever
        b"\x80\x02}\x8a\x10" + b"\xff" * 15 + b"\x0fNs.",  # a key of any length
        b"\x80\x02X\xff\xff\xff\xffa.",  # a text of four gigabytes
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"a.",  # bytes without end
        b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b"a.",
        b"\x80\x04\x8c\x01a" + b"2\x93" * 10 + b"X\x01\0\0\0b.",
        b"\x80\x02h\x07.",
        b"\x80\x02(.",
        b"\x80\x02e.",
        b"\x80\x02u.",
        b"\x80\x02NR.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02",
        b".",
        b"",
        b"I" + b"9" * 10000 + b"\n.",
    ],
)
def test_a_pickle_that_is_none_is_refused(content, written):
    assert refused(written(content), " is damaged or no weight file.*; download it again$")


def test_a_pickle_of_too_many_instructions_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="too many instructions"):
        Unpickler(io.BytesIO(b"\x80\x02" + b"N0" * 100 + b"N."), max_instructions=100).load()
    pairs = b"]q\x00(" + b"K\x01K\x02\x86" * 10 + b"e"
    again = b"ccollections\nOrderedDict\nh\x00\x85R0" * 20
    with pytest.raises(pickle.UnpicklingError, match="too many instructions"):
        Unpickler(io.BytesIO(b"\x80\x02" + pairs + again + b"."), max_instructions=250).load()


def test_a_long_directory_is_not_read(tmp_path):
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, *[0] * 8, 8, *[0] * 6) + b"12345678"
    entries = entry * (CHUNK // len(entry) + 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, len(entries), 30, 0)
    (tmp_path / "long.pt").write_bytes(b"PK\3\4" + b"\0" * 26 + entries + end)
    assert refused(tmp_path / "long.pt", r"\(a directory that is too long\)")


def module(name, state):
    """A module of an archive, as instructions."""
    return b"c__torch__\n" + name.encode() + b"\n)\x81" + state + b"b"


def test_an_archive_whose_modules_hold_themselves_is_refused(written):
    itself = module("A", b"q\x00}X\x01\0\0\0ah\x00s")
    assert refused(written(b"\x80\x02" + itself + b"."))
    shared = module("Z", b"}")
    for _ in range(40):
        shared = module("A", b"0" + shared + b"q\x01" + b"0c__torch__\nA\n)\x81}(X\x01\0\0\0ah\x01X\x01\0\0\0bh\x01u")
    assert refused(written(b"\x80\x02" + shared + b"."))


def test_an_archive_of_one_object_that_is_no_module_has_no_weights(written):
    assert read_weights(written(b"\x80\x02" + module("A", b"K\x01") + b".")) == {}


@pytest.mark.parametrize("order", [b"big", b"middle", b"little" * 100])
def test_numbers_of_another_byte_order_are_refused(order, written):
    assert refused(written({"w": View((24,), (1,))}, byteorder=order))


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
