#!/usr/bin/env bash
# TPT, prompt tuning, on ImageNet and its variants.
#   bash scripts/tpt-prompt.sh 0
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment classification tpt-prompt --datasets I A V R K
