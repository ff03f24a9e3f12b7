#!/usr/bin/env bash
# CLIP's zero-shot accuracy on ImageNet and its variants.
#   bash scripts/zero-shot.sh 0
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment classification zero-shot --datasets I A V R K
