#!/usr/bin/env bash
# Train the embedded captioners from nothing: the language model, then ClipCap and CapDec on scenes as the embedded
# student sees them. Writes assets/demo-lm, demo-clipcap and demo-capdec. About an hour and a half on two cores.
#   bash scripts/train_demo_captioner.sh
source "$(dirname "$0")/env.sh"

work="$OUTPUT/demo-captioner"
export OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
rm -rf "$work"
cd "$PROJECT"

"$PYTHON" -m demo.train_language_model
"$PYTHON" -m demo.world "$work/data" --training-scenes 6000 --seed 41
"$PYTHON" -m demo.world "$work/data" --styles clean --scenes 100 --seed 1001  # validation: pairs never trained on
for list in train clean; do
    "$PYTHON" caption/extract_features.py --data "$work/data" --captions "$list.json" --student demo-student \
        --output "$work/features-$list" --device cpu
done
for method in clipcap capdec; do
    "$PYTHON" caption/train.py --config "caption/configs/train-$method-demo.yaml" --device cpu \
        --data "$work/features-train" --validation "$work/features-clean" --output "$work/$method"
    mkdir -p "assets/demo-$method"
    cp "$work/$method/mapper.safetensors" "assets/demo-$method/"
done
