"""`python -m rlcf.report`."""

from rlcf.start import start

if __name__ == "__main__":
    start("rlcf.report.main")
