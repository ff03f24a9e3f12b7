#!/usr/bin/env bash
# Distillation from the reward model on Flickr30k retrieval, image to text and text to image.
#   bash scripts/kd_flickr_ret.sh 0
# Flags of retrieval/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment retrieval kd-flickr-ret
