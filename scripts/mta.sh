#!/usr/bin/env bash
# MTA, a robust mode of the views' features, on ImageNet and its variants.
#   bash scripts/mta.sh 0
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment classification mta --datasets I A V R K
