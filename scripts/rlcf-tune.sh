#!/usr/bin/env bash
# RLCF, the image tower, on ImageNet and its variants: one reward model, three of them (RLCF-S), or three and a
# momentum buffer (RLCF-S-M).
#   bash scripts/rlcf-tune.sh GPU [single|ensemble|ensemble-momentum] [flags]
source "$(dirname "$0")/env.sh"

variant single ensemble ensemble-momentum
experiment classification "rlcf-tune-$VARIANT" --datasets I A V R K
