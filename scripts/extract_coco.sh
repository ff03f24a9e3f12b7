#!/usr/bin/env bash
# CLIP features of COCO's captions and images (Karpathy's splits), which the captioners are trained on.
#   bash scripts/extract_coco.sh GPU [flags]
source "$(dirname "$0")/env.sh"

coco="$RLCF_ROOT/dataset/coco2014"
for split in train val; do
    if [ $split = val ] && [ ! -f "$coco/coco_karpathy_val.json" ]; then
        echo "no $coco/coco_karpathy_val.json: no features for the validation loss" >&2
        break
    fi
    launch caption/extract_features.py --data "$coco" --captions "coco_karpathy_$split.json" \
        --clip-root "$CLIP_ROOT" --image-reading published --skip-bad-images --output "$OUTPUT/features/coco-$split-vitb16"
done
