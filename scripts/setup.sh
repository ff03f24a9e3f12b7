#!/usr/bin/env bash
# Make the project's virtual environment .venv; instant when it has the requirements.
#   bash scripts/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=(requirements.txt requirements-dev.txt)
if [ -x .venv/bin/python ] && .venv/bin/python scripts/has_requirements.py "${requirements[@]}"; then
    exit 0
fi
python=""
for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    if command -v "$candidate" > /dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        python="$candidate"
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: no Python 3.10 or newer was found; install one and start again" >&2
    exit 2
fi
echo "setting up .venv ($("$python" --version)); PyTorch is large, this takes some minutes" >&2
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
