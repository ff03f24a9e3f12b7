#!/usr/bin/env bash
# ZERO, a vote of the confident views, on ImageNet and its variants; the student votes, or the reward model.
#   bash scripts/zero.sh GPU [student|reward] [flags]
source "$(dirname "$0")/env.sh"

variant student reward
experiment classification "zero-$VARIANT" --datasets I A V R K
