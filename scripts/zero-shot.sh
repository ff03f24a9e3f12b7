#!/usr/bin/env bash
# CLIP's zero-shot accuracy on ImageNet and its variants.
#   bash scripts/zero-shot.sh GPU [flags]
source "$(dirname "$0")/env.sh"

experiment classification zero-shot --datasets I A V R K
