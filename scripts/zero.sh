#!/usr/bin/env bash
# ZERO, a vote of the confident views, on ImageNet and its variants; the student votes, or the reward model.
#   bash scripts/zero.sh 0 student
#   bash scripts/zero.sh 0 reward
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

variant student reward
experiment classification "zero-$VARIANT" --datasets I A V R K
