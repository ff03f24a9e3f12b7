#!/usr/bin/env bash
# RLCF on Flickr30k retrieval, image to text and text to image: one reward model, three of them (RLCF-S), or three and a
# momentum buffer (RLCF-S-M).
#   bash scripts/tta_flickr_ret.sh 0 single
#   bash scripts/tta_flickr_ret.sh 0 ensemble
#   bash scripts/tta_flickr_ret.sh 0 ensemble-momentum
#   bash scripts/tta_flickr_ret.sh 0 anchored
# Flags of retrieval/main.py may follow.
source "$(dirname "$0")/env.sh"

variant single ensemble ensemble-momentum anchored
experiment retrieval "tta-flickr-ret-$VARIANT"
