#!/usr/bin/env bash
# Train ClipCap on Flickr30k, from image features: what extract_flickr.sh wrote, or else the published .pkl.
# The settings are those of COCO.
#   bash scripts/train_clipcap_flickr.sh 0
# Flags of caption/train.py may follow.
source "$(dirname "$0")/captioners.sh"

train clipcap flickr30k "$RLCF_ROOT/dataset/flickr30k/flickr_train_set_image_text_vitb16_v2.pkl" \
    clipcap_opt125m_transformer_flickr_01
