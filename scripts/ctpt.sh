#!/usr/bin/env bash
# C-TPT, calibrated prompt tuning, on ImageNet and its variants or on the ten fine-grained sets.
#   bash scripts/ctpt.sh 0 shifts
#   bash scripts/ctpt.sh 0 fine
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

variant shifts fine
datasets=(I A V R K)
if [ "$VARIANT" = fine ]; then
    datasets=(flower102 dtd pets cars ucf101 caltech101 food101 sun397 aircraft eurosat)
fi
experiment classification "ctpt-$VARIANT" --datasets "${datasets[@]}"
