#!/usr/bin/env bash
# Train CapDec on COCO, from the captions' own features and noise: what extract_coco.sh wrote, or else the published .pkl.
#   bash scripts/train_capdec_coco.sh GPU [flags]
source "$(dirname "$0")/env.sh"

features="$OUTPUT/features/coco-train-vitb16"
[ -e "$features" ] || features="$RLCF_ROOT/dataset/coco2014/COCO_train_set_image_text_vitb16_v2.pkl"
validation=()
[ ! -e "$OUTPUT/features/coco-val-vitb16" ] || validation=(--validation "$OUTPUT/features/coco-val-vitb16")
launch caption/train.py --config "$PROJECT/caption/configs/train-capdec-coco.yaml" --data "$features" \
    ${validation[@]+"${validation[@]}"} --language-model "$LANGUAGE_MODEL" \
    --output "$OUTPUT/capdec_opt125m_transformer_coco_01"
