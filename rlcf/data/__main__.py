"""`python -m rlcf.data`; `rlcf-data` is the same command."""

from rlcf.start import data

if __name__ == "__main__":
    data()
