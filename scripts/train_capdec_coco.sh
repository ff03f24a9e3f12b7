#!/usr/bin/env bash
# Train CapDec on COCO, from the captions' own features and noise: what extract_coco.sh wrote, or else the published .pkl.
#   bash scripts/train_capdec_coco.sh 0
# Flags of caption/train.py may follow.
source "$(dirname "$0")/captioners.sh"

train capdec coco "$RLCF_ROOT/dataset/coco2014/COCO_train_set_image_text_vitb16_v2.pkl" \
    capdec_opt125m_transformer_coco_01
