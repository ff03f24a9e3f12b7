#!/usr/bin/env bash
# Captioners as they are, without adaptation, on NoCaps: trained on COCO, all three domains. Scores are on the screen and in the run folder.
#   bash scripts/eval_c2n.sh 0 clipcap
#   bash scripts/eval_c2n.sh 0 capdec
# Flags of caption/main.py may follow.
source "$(dirname "$0")/captioners.sh"

variant clipcap capdec
as_it_is eval-c2n
