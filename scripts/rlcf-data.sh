#!/usr/bin/env bash
# What data and weights there are, what is wrong with them, and how to get them (docs/data.md), below RLCF_ROOT.
#   bash scripts/rlcf-data.sh list
#   bash scripts/rlcf-data.sh check
#   bash scripts/rlcf-data.sh get A ViT-B/16 ViT-L/14
source "$(dirname "$0")/env.sh"

rlcf_data ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
