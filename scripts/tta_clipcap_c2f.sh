#!/usr/bin/env bash
# RLCF, ClipCap trained on COCO and adapted to Flickr30k: one reward model, three of them (RLCF-S), or
# three and a momentum buffer (RLCF-S-M).
#   bash scripts/tta_clipcap_c2f.sh 0 single
#   bash scripts/tta_clipcap_c2f.sh 0 ensemble
#   bash scripts/tta_clipcap_c2f.sh 0 ensemble-momentum
#   bash scripts/tta_clipcap_c2f.sh 0 anchored
# Flags of caption/main.py may follow.
source "$(dirname "$0")/env.sh"

variant single ensemble ensemble-momentum anchored
experiment caption "tta-clipcap-c2f-$VARIANT" --evaluate --language-model "$LANGUAGE_MODEL" \
    --checkpoint "$OUTPUT/clipcap_opt125m_transformer_coco_01"
