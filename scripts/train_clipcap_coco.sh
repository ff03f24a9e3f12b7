#!/usr/bin/env bash
# Train ClipCap on COCO, from image features: what extract_coco.sh wrote, or else the published .pkl.
#   bash scripts/train_clipcap_coco.sh 0
# Flags of caption/train.py may follow.
source "$(dirname "$0")/captioners.sh"

train clipcap coco "$RLCF_ROOT/dataset/coco2014/COCO_train_set_image_text_vitb16_v2.pkl" \
    clipcap_opt125m_transformer_coco_01
