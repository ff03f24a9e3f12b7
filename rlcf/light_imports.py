"""Imports torchvision and open_clip without what most runs never use, which is more than half of a command's start.

open_clip imports timm and transformers, for towers that are theirs, where they are installed; torchvision imports
torch's compiler, for one check.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

TOWERS = {"timm": ("timm_model", "timm_model_name"), "transformers": ("hf_model", "hf_model_name")}
"""Library -> open_clip's module of its towers, and the setting that names one.

The module takes the library for not installed where its import fails.
"""
COMPILER = ("torch._dynamo", "torch._dynamo.utils")
"""torch's compiler, and its module that torchvision imports `is_compile_supported` from."""


@contextmanager
def light_imports(*needed: str) -> Iterator[None]:
    """A context in which timm and transformers look as if they were not installed, and torch's compiler is put off.

    needed: those of the libraries that are imported nevertheless. `import_towers` makes up for them. What was imported
    before stays.
    """
    left_out = [name for name in TOWERS if name not in needed and name not in sys.modules]
    put_off = {} if COMPILER[0] in sys.modules else {name: _Later(name) for name in COMPILER}
    sys.modules.update(put_off)
    sys.modules.update(dict.fromkeys(left_out))  # type: ignore[arg-type]  # None: importing it raises ImportError
    try:
        yield
    finally:
        for name in left_out:
            del sys.modules[name]
        _forget(put_off)


def import_towers(model_cfg: Mapping[str, Any] | None = None) -> None:
    """Let open_clip build towers of timm and of transformers, where it was imported without them.

    model_cfg: of open_clip, whose towers are to be built; None: any may come.
    """
    settings = {} if model_cfg is None else {**model_cfg["vision_cfg"], **model_cfg["text_cfg"]}
    for library, (module, named) in TOWERS.items():
        towers = importlib.import_module(f"open_clip.{module}")
        if getattr(towers, library) is None and (model_cfg is None or named in settings):
            importlib.reload(towers)


class _Later(ModuleType):
    """Stands for a module that is imported when something of it is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "is_compile_supported":
            return lambda *device: self._imported().is_compile_supported(*device)
        return getattr(self._imported(), name)

    def _imported(self) -> ModuleType:
        _forget({name: module for name, module in sys.modules.items() if isinstance(module, _Later)})
        return importlib.import_module(self.__name__)


def _forget(modules: Mapping[str, ModuleType]) -> None:
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
