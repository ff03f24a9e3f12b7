#!/usr/bin/env bash
# Distillation from the reward model into the image tower, on ImageNet and its variants.
#   bash scripts/kd-tune.sh 0 kd
#   bash scripts/kd-tune.sh 0 dkd
#   bash scripts/kd-tune.sh 0 atkd
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

variant kd dkd atkd
experiment classification "kd-tune-$VARIANT" --datasets I A V R K
