#!/usr/bin/env bash
# Captioners as they are, without adaptation, on Flickr30k: trained on COCO, Karpathy's test images. Scores are on the screen and in the run folder.
#   bash scripts/eval_c2f.sh 0 clipcap
#   bash scripts/eval_c2f.sh 0 capdec
# Flags of caption/main.py may follow.
source "$(dirname "$0")/captioners.sh"

variant clipcap capdec
as_it_is eval-c2f
