"""Weight files of handmade pickles: those that are read, and those that lie about what they hold."""

import copy
import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch

from rlcf.clip.loading import load_clip
from rlcf.clip.unpickle import Unpickler
from rlcf.clip.weights import CHUNK, read_weights, tensors_in
from rlcf.errors import UserError


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
