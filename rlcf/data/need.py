"""What a launcher's command needs, looked for before anything is loaded."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlcf.data.catalogue import known
from rlcf.data.catalogue.weights import COOP, OPENAI_FILES, TRAIN_SET
from rlcf.data.entries import Entry, Machine
from rlcf.errors import UserError, say

Settings = Mapping[str, list[str]]
TRAIN, EXTRACT = "caption/train.py", "caption/extract_features.py"
MADE_BY = {
    "clipcap_opt125m_transformer_coco_01": ("clipcap", "train_clipcap_coco.sh"),
    "capdec_opt125m_transformer_coco_01": ("capdec", "train_capdec_coco.sh"),
    TRAIN_SET: ("coco-features", "extract_coco.sh"),
    "flickr_train_set_image_text_vitb16_v2.pkl": ("flickr-features", "extract_flickr.sh"),
    "coco_karpathy_train.json": ("coco-train", ""),
    "flickr30k_train.json": ("flickr30k-train", ""),
    COOP: ("coop", ""),
}
"""Name of a file or folder -> the entry that it is of, and the launcher that makes it."""


def need(script: str, arguments: Sequence[str], command: str) -> None:
    """Looks for what a command of the project will read. It is a quick look: nothing is counted or loaded.

    script: caption/main.py and so on; arguments: its own, with a preset if there is one; command: how this program is
    called. What is missing is printed, with what would get it; what would be downloaded by the run is told too.
    Raises UserError if the command cannot work.
    """
    settings = read_settings(arguments)
    of_files = script in (TRAIN, EXTRACT)  # their --data is no folder of datasets
    machine = Machine.of(None if of_files else _last(settings, "data"), _last(settings, "clip_root"))
    missing = [*_data(script, settings, machine, command), *_files(settings, machine, command)]
    for line in _downloads(script, settings, machine, command):
        say(line)
    for line in missing:
        say(f"missing: {line}")
    if missing:
        things = "a thing is" if len(missing) == 1 else f"{len(missing)} things are"
        raise UserError(f"{things} missing; nothing was started")


def read_settings(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Setting -> its values, of a command line and its preset. Flags win, the last of them first.

    >>> read_settings(["--datasets", "A", "R", "--steps=3", "--limit", "2", "--no-evaluate"])
    {'datasets': ['A', 'R'], 'steps': ['3'], 'limit': ['2'], 'no_evaluate': []}
    """
    flags: dict[str, list[str]] = {}
    name = ""
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            flags[name] = [value] if equals else []
        elif name:
            flags[name].append(word)
    preset = Path(flags["config"][-1]) if flags.get("config") else None
    if preset is None or not preset.is_file():
        return flags
    import yaml

    try:
        held: Any = yaml.safe_load(preset.read_text(encoding="utf-8"))
    except Exception:  # the task tells what is wrong with its preset
        return flags
    if not isinstance(held, dict):
        return flags
    values = {str(key): value if isinstance(value, list) else [value] for key, value in held.items()}
    return {**{key: [str(v) for v in value] for key, value in values.items()}, **flags}


def _last(settings: Settings, name: str) -> str | None:
    return settings[name][-1] if settings.get(name) else None


def _data(script: str, settings: Settings, machine: Machine, command: str) -> list[str]:
    """Datasets, lists and features that are not there."""
    if script in (TRAIN, EXTRACT):
        places = [Path(file).expanduser() for name in ("data", "validation") for file in settings.get(name, [])]
        listed = _last(settings, "captions")
        if script == EXTRACT and listed:
            places = [places[0] / listed]
        return [told for place in places if (told := _missing_file(place, machine, command))]
    missing = []
    for name in settings.get("datasets", []):
        entry = known(name) if ":" not in name else None
        if entry is None or entry.kind in ("clip", "files") or machine.locate(entry) is not None:
            continue
        flat = next((place for place in machine.places(entry) if place.is_dir()), None)
        if entry.name == "I" and flat is not None:
            sort = f"{command} convert imagenet-val {shlex.quote(str(flat.absolute()))}{machine.flags}"
            missing.append(f"the class folders of {flat}; make them: {sort}")
        else:
            missing.append(f"dataset {name} ({entry.title}); {_get(entry, machine, command)}")
    return missing


def _files(settings: Settings, machine: Machine, command: str) -> list[str]:
    """Checkpoints, contexts and the language model that are given by a path which is not there."""
    places = [Path(value).expanduser() for name in ("checkpoint", "context") for value in settings.get(name, [])]
    return [told for place in places if len(place.parts) > 1 and (told := _missing_file(place, machine, command))]


def _missing_file(place: Path, machine: Machine, command: str) -> str | None:
    """The line for a file or folder that is not there."""
    if place.exists():
        return None
    made = MADE_BY.get(place.name)
    if made is None:
        return str(place)
    name, launcher = made
    entry = known(name)
    assert entry is not None
    makes = f"; or make it: bash {_scripts() / launcher} 0" if launcher else ""
    return f"{place}; {_get(entry, machine, command)}{makes}"


def _downloads(script: str, settings: Settings, machine: Machine, command: str) -> list[str]:
    """Models that are not there, and which the run itself will download."""
    told = []
    asked = [name for key in ("student", "reward", "clip", "evaluate_clip") for name in settings.get(key, [])]
    if script == "clipscore/main.py" or (settings.get("evaluate", ["False"]) in ([], ["True"])):
        asked += [] if {"clip", "evaluate_clip"} & settings.keys() or "no_evaluate" in settings else ["ViT-B/32"]
    clips = [entry for name in dict.fromkeys(asked) if name in OPENAI_FILES and (entry := known(name))]
    absent = [entry.name for entry in clips if machine.locate(entry) is None]
    if absent:
        them = "it" if len(absent) == 1 else "them"
        told.append(
            f"not in {machine.clip_root}: {', '.join(absent)}; open_clip takes {them} from its cache or downloads "
            f"{them}. Get {them} verified: {command} get {' '.join(absent)}{machine.flags}"
        )
    if "facebook/opt-125m" in settings.get("language_model", []):
        entry = known("opt-125m")
        assert entry is not None
        told.append(
            "OPT-125m is not in pretrained/opt-125m: transformers takes it from its cache or downloads it; "
            f"{_get(entry, machine, command)}"
        )
    return told


def _get(entry: Entry, machine: Machine, command: str) -> str:
    """What gets an entry, or tells how a person gets it."""
    return f"{'get it' if entry.downloads else 'how to get it'}: {command} get {entry.name}{machine.flags}"


def _scripts() -> Path:
    """The launchers' folder."""
    return Path(sys.modules["rlcf"].__file__ or "").resolve().parents[1] / "scripts"
