#!/usr/bin/env bash
# What the launchers share that train captioners and score them; they source it.
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# features SET FOLDER LIST: CLIP features of the captions and images of FOLDER/LIST, or FOLDER/annotations/LIST.
features() {
    local list="$3"
    [ -f "$2/$list" ] || [ ! -f "$2/annotations/$list" ] || list="annotations/$list"
    launch caption/extract_features.py --data "$2" --captions "$list" --clip-root "$CLIP_ROOT" \
        --image-reading published --skip-bad-images --output "$OUTPUT/features/$1"
}

# extract SET FOLDER TRAINING VALIDATION: features of a training list, and of a validation list where there is one.
extract() {
    features "$1-train-vitb16" "$2" "$3"
    if [ -f "$2/$4" ] || [ -f "$2/annotations/$4" ]; then
        features "$1-val-vitb16" "$2" "$4"
    else
        echo "no $2/$4: no features for the validation loss" >&2
    fi
}

# train METHOD SET PUBLISHED NAME: a captioner, from the features that extract_*.sh wrote, or else a published file.
train() {
    local features="$OUTPUT/features/$2-train-vitb16" validation=()
    [ -e "$features" ] || features="$3"
    [ ! -e "$OUTPUT/features/$2-val-vitb16" ] || validation=(--validation "$OUTPUT/features/$2-val-vitb16")
    launch caption/train.py --config "$PROJECT/caption/configs/train-$1-coco.yaml" --data "$features" \
        ${validation[@]+"${validation[@]}"} --language-model "$LANGUAGE_MODEL" --output "$OUTPUT/$4"
}

# as_it_is PRESET: captions of the captioner VARIANT without adaptation, and their scores on the screen.
as_it_is() {
    experiment caption "$1" --language-model "$LANGUAGE_MODEL" --output "$OUTPUT/$1-$VARIANT" \
        --checkpoint "$OUTPUT/${VARIANT}_opt125m_transformer_coco_01"
}
