"""Damages of the files in a run's folder, and whether a run survives them."""

import json
import re
import shutil
import zlib

from rlcf.errors import UserError
from rlcf.failures import sentence_of
from tests.fuzz.files import Special, put

SPECIAL = {"missing": "nothing", "a pipe": "pipe", "a device": "/dev/zero", "a folder": "folder", "a loop": "loop"}
"""What stands in the place of a file."""
CORE = (*SPECIAL, "empty", "cut in half", "foreign", "a bit at 40%", "digit 0")
"""The damages that every file gets."""
UNREAD = (".lock", "log.txt")
"""Files whose content no run reads: only what else stands in their place matters."""
NONSENSE = {
    "nested": b"[" * 100_000,
    "null": b"null\n",
    "a number without end": b'{"index": 1e999, "settings": ' + b"9" * 5000 + b"}\n",
    "a lone surrogate": b'{"index": 0, "id": "\\ud800", "status": "ok"}\n',
    "bytes": b"\xff\xfe\x00\n\x80",
}


def damages(content, foreign):
    """Name -> content of a damaged file, or what stands in its place. foreign: the file of another run, or None."""
    size = len(content)
    found = {name: Special(kind) for name, kind in SPECIAL.items()}
    found |= {"empty": b"", "cut in half": content[: size // 2], "cut by a byte": content[:-1]}
    found |= {"longer": content + content[-40:], "twice": content + content, **NONSENSE}
    if foreign is not None:
        found["foreign"] = foreign
    for share in (1, 40, 99):
        place = size * share // 100
        found[f"a bit at {share}%"] = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    digits = [m.start() for m in re.finditer(rb"(?<=[:,\[ ])\d", content)]
    for number, place in enumerate(digits[:: max(1, len(digits) // 3)]):
        found[f"digit {number}"] = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    return found | _of_lines(content)


def _of_lines(content):
    """Damages of a file of records; none of another one."""
    lines = content.splitlines(keepends=True)
    try:
        records = [json.loads(line) for line in lines]
        first = dict(records[0])
        assert "index" in first
    except (ValueError, TypeError, IndexError, AssertionError):
        return {}
    rest = b"".join(lines[1:])

    def changed(**change):
        return json.dumps({**first, **change}).encode() + b"\n" + rest

    return {
        "a line twice": content + lines[0],
        "a line gone": rest,
        "lines turned round": b"".join(reversed(lines)),
        "half a line inside": lines[0][:30] + b"\n" + rest,
        "no index": json.dumps({k: v for k, v in first.items() if k != "index"}).encode() + b"\n" + rest,
        "no status": json.dumps({k: v for k, v in first.items() if k != "status"}).encode() + b"\n" + rest,
        "another index": changed(index=10**30),
        "an index that is a text": changed(index=str(first["index"])),
        "an index that is true": changed(index=True),
        "an id of null": changed(id=None),
        "steps of null": changed(steps=None),
        "not a number": changed(seconds=float("nan")),
        "another answer": re.sub(rb'("adapted\w*": )(\d|"|\[\d)', rb"\g<1>7", content, count=1),
        "null in a line": content + b"null\n",
        "carriage returns": content.replace(b"\n", b"\r\n"),
    }


def survive(folder, foreign, run, found, tmp_path, share=1, also=()):
    """Damage each file of a run's folder in each way, and start the run again on a copy.

    folder: of the run; foreign: of another one; run: from a folder to what it leaves; found: from that to what must be
    as after an undisturbed run. share: of the ways beyond `CORE` each file that is read gets one in so many; also:
    those, as (file, damage), that are taken anyhow. Returns (file, damage) -> "same" or the sentence that refuses;
    anything else fails.
    """
    expected, outcomes = found(run(shutil.copytree(folder, tmp_path / "whole"))), {}
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder)
        other = foreign / name
        for damage, content in damages(file.read_bytes(), other.read_bytes() if other.is_file() else None).items():
            taken = damage in CORE or (str(name), damage) in also
            if str(name) in UNREAD and damage not in SPECIAL:
                continue
            if not taken and zlib.crc32(f"{name} {damage}".encode()) % share:
                continue
            copy = shutil.copytree(folder, tmp_path / "copy")
            (copy / name).unlink()
            put(copy / name, content)
            try:
                assert found(run(copy)) == expected, f"{name}, {damage}: other results"
                outcomes[str(name), damage] = "same"
            except Exception as error:
                said = str(error) if isinstance(error, UserError) else sentence_of(error)
                if said is not None and "\n" not in said and len(said) < 1000:
                    outcomes[str(name), damage] = said
                    shutil.rmtree(copy)
                    continue
                raise AssertionError(f"{name}, {damage}: {type(error).__name__}: {error}") from error
            shutil.rmtree(copy)
    return outcomes
