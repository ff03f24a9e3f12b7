"""Starts the report as a command."""

from rlcf.start import start

if __name__ == "__main__":
    start("rlcf.report.main")
