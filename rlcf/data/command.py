"""How `rlcf-data` is called on this machine, for advice that can be pasted."""

import shlex
import shutil
import sys
from pathlib import Path


def own_command() -> str:
    """The command `rlcf-data` where it is installed, else the launcher of the project's folder."""
    if shutil.which("rlcf-data"):
        return "rlcf-data"
    launcher = Path(__file__).resolve().parents[2] / "scripts" / "rlcf-data.sh"
    return f"bash {shlex.quote(str(launcher))}" if launcher.is_file() else f"{shlex.quote(sys.executable)} -m rlcf.data"
