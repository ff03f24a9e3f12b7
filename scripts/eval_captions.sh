#!/usr/bin/env bash
# Score captions against references and images: BLEU, METEOR, ROUGE-L, CIDEr, CLIPScore.
#   bash scripts/eval_captions.sh 0 candidates.json IMAGES --references refs.json
# Flags of clipscore/main.py may follow.
source "$(dirname "$0")/env.sh"

check_gpu
device="cuda:${ARGUMENTS[0]}"
run clipscore/main.py "${ARGUMENTS[@]:1}" --clip-root "$CLIP_ROOT" --device "${device/cuda:cpu/cpu}"
