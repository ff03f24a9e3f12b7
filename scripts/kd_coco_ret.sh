#!/usr/bin/env bash
# Distillation from the reward model on COCO retrieval, image to text and text to image.
#   bash scripts/kd_coco_ret.sh 0
# Flags of retrieval/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment retrieval kd-coco-ret
