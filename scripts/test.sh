#!/usr/bin/env bash
# Set everything up and run the linters and the tests, a worker a core. Further arguments go to pytest:
#   bash scripts/test.sh -k golden
REQUIREMENTS="requirements.txt requirements-dev.txt"
source "$(dirname "$0")/env.sh"

export OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
cd "$PROJECT"
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" -m pytest -n auto "$@"
