#!/usr/bin/env bash
# CLIP features of Flickr30k's captions and images (Karpathy's splits), to train captioners on.
#   bash scripts/extract_flickr.sh 0
# Flags of caption/extract_features.py may follow.
source "$(dirname "$0")/captioners.sh"

extract flickr30k "$RLCF_ROOT/dataset/flickr30k" flickr30k_train.json flickr30k_val.json
