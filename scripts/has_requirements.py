"""Ends with code 0 if this Python is new enough and has every package of the requirement files named.

It says nothing, imports no package, and runs on any Python 3.
"""

import re
import sys


def numbers(version):
    return [int(part) for part in re.findall(r"\d+", version)]


def main(files):
    if sys.version_info < (3, 10):  # noqa: UP036 (an older one may start this)
        return False
    from importlib.metadata import PackageNotFoundError, version

    for file in files:
        with open(file, encoding="utf-8") as lines:  # noqa: PTH123
            for line in lines:
                wanted = re.match(r"([\w.-]+)(?:>=([\d.]+))?", line.split("#")[0].strip())
                try:
                    if wanted and numbers(version(wanted[1])) < numbers(wanted[2] or "0"):
                        return False
                except PackageNotFoundError:
                    return False
    return True


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
