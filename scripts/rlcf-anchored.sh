#!/usr/bin/env bash
# RLCF without its harms (docs/methods.md) on ImageNet and its variants: the prompt, or the image tower.
#   bash scripts/rlcf-anchored.sh 0 prompt
#   bash scripts/rlcf-anchored.sh 0 tune
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

variant prompt tune
experiment classification "rlcf-anchored-$VARIANT" --datasets I A V R K
