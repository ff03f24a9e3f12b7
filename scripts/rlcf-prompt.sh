#!/usr/bin/env bash
# RLCF, prompt tuning, on ImageNet and its variants; the context starts from words, or from CoOp's.
#   bash scripts/rlcf-prompt.sh 0 words
#   bash scripts/rlcf-prompt.sh 0 coop
# Flags of classification/main.py may follow.
source "$(dirname "$0")/env.sh"

variant words coop
context=words
if [ "$VARIANT" = coop ]; then
    context="$RLCF_ROOT/pretrained/coop/coop_16shots_nctx4_cscFalse_ctpend_vitb16_seed1"
fi
experiment classification rlcf-prompt --datasets I A V R K --context "$context" --output "$OUTPUT/rlcf-prompt-$VARIANT"
