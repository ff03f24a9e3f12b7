#!/usr/bin/env bash
# RLCF, the image tower, on ImageNet and its variants: one reward model, three of them (RLCF-S), or three and a
# momentum buffer (RLCF-S-M).
#   bash scripts/rlcf-tune.sh 0 single
#   bash scripts/rlcf-tune.sh 0 ensemble
#   bash scripts/rlcf-tune.sh 0 ensemble-momentum
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

variant single ensemble ensemble-momentum
experiment classification "rlcf-tune-$VARIANT" --datasets I A V R K
