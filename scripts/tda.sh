#!/usr/bin/env bash
# TDA, caches of earlier images, on ImageNet and its variants; one process, since images are met in order.
#   bash scripts/tda.sh 0
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment classification tda --datasets I A V R K
