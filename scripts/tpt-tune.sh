#!/usr/bin/env bash
# TPT's objective on the image tower, on ImageNet and its variants.
#   bash scripts/tpt-tune.sh 0
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment classification tpt-tune --datasets I A V R K
