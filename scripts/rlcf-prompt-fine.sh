#!/usr/bin/env bash
# RLCF, prompt tuning, on the ten fine-grained sets.
#   bash scripts/rlcf-prompt-fine.sh 0
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment classification rlcf-prompt-fine --datasets flower102 dtd pets cars ucf101 caltech101 food101 sun397 aircraft eurosat
