#!/usr/bin/env bash
# RLCF on Flickr30k retrieval, image to text and text to image: one reward model, three of them (RLCF-S), or three and a
# momentum buffer (RLCF-S-M).
#   bash scripts/tta_flickr_ret.sh GPU [single|ensemble|ensemble-momentum|anchored] [flags]
source "$(dirname "$0")/env.sh"

variant single ensemble ensemble-momentum anchored
experiment retrieval "tta-flickr-ret-$VARIANT"
