"""A page to look at runs with, and tables for papers: `python -m rlcf.report output/RUN [...]`."""
