#!/usr/bin/env bash
# CLIP's zero-shot recall on COCO and Flickr30k, image to text and text to image.
#   bash scripts/zeroshot_ret.sh 0
# Flags of retrieval/main.py may follow.
source "$(dirname "$0")/env.sh"

experiment retrieval zeroshot-ret
