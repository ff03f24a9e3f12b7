"""The parser of every command line."""

import argparse
from functools import partial
from typing import Any, NoReturn

from rlcf import __version__
from rlcf.errors import UserError


class Parser(argparse.ArgumentParser):
    """A command line that knows --version and whose mistakes are `UserError`s."""

    def __init__(self, **settings: Any) -> None:
        layout = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30, width=118)
        super().__init__(**{"formatter_class": layout, "allow_abbrev": False, **settings})
        self.add_argument("--version", action="version", version=f"rlcf {__version__}")

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")
