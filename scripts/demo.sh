#!/usr/bin/env bash
# Set everything up and show RLCF on the embedded world: pictures no model was trained on, tiny models, no download.
#   bash scripts/demo.sh                  # classification, retrieval and captioning
#   bash scripts/demo.sh classification   # that one alone
#   bash scripts/demo.sh retrieval
#   bash scripts/demo.sh captioning
# Leaves output/demo/: the pictures, a run folder a method, results.md, classification.png, captioning.png, and a page of
# each task to look at the runs with: classification.html, retrieval.html, captioning.html.
source "$(dirname "$0")/env.sh"

export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
[ ! -e "$OUTPUT/demo/results.md" ] || rm -rf "$OUTPUT/demo"  # one that was stopped goes on
cd "$PROJECT"
"$PYTHON" -m demo.show "$OUTPUT/demo" "${ARGUMENTS[@]}"
