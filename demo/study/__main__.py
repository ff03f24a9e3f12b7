"""Starts the study as a command."""

from rlcf.start import start

if __name__ == "__main__":
    start("demo.study.main")
