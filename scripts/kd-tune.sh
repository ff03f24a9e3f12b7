#!/usr/bin/env bash
# Distillation from the reward model into the image tower, on ImageNet and its variants.
#   bash scripts/kd-tune.sh GPU [kd|dkd|atkd] [flags]
source "$(dirname "$0")/env.sh"

variant kd dkd atkd
experiment classification "kd-tune-$VARIANT" --datasets I A V R K
