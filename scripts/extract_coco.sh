#!/usr/bin/env bash
# CLIP features of COCO's captions and images (Karpathy's splits), which the captioners are trained on.
#   bash scripts/extract_coco.sh 0
# Flags of caption/extract_features.py may follow.
source "$(dirname "$0")/captioners.sh"

extract coco "$RLCF_ROOT/dataset/coco2014" coco_karpathy_train.json coco_karpathy_val.json
