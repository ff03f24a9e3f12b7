#!/usr/bin/env bash
# Train ClipCap on COCO, from image features: what extract_coco.sh wrote, or else the published .pkl.
#   bash scripts/train_clipcap_coco.sh GPU [flags]
source "$(dirname "$0")/env.sh"

features="$OUTPUT/features/coco-train-vitb16"
[ -e "$features" ] || features="$RLCF_ROOT/dataset/coco2014/COCO_train_set_image_text_vitb16_v2.pkl"
validation=()
[ ! -e "$OUTPUT/features/coco-val-vitb16" ] || validation=(--validation "$OUTPUT/features/coco-val-vitb16")
launch caption/train.py --config "$PROJECT/caption/configs/train-clipcap-coco.yaml" --data "$features" \
    ${validation[@]+"${validation[@]}"} --language-model "$LANGUAGE_MODEL" \
    --output "$OUTPUT/clipcap_opt125m_transformer_coco_01"
