#!/usr/bin/env bash
# Set everything up and show RLCF on the embedded world: pictures no model was trained on, two tiny CLIPs, no download.
#   bash scripts/demo.sh
# Leaves output/demo/: the pictures, a run folder a method, results.md, classification.png.
source "$(dirname "$0")/env.sh"

demo="$OUTPUT/demo"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
rm -rf "$demo"
mkdir -p "$demo"
cd "$PROJECT"
"$PYTHON" -m rlcf.demo.world "$demo/data" --styles clean blur pixelate noto --per-class 2

# classify RUN FLAGS...: a method on every style, through the entry script of the real experiments.
classify() {
    "$PYTHON" classification/main.py --data "$demo/data" --datasets folder:clean folder:blur folder:pixelate folder:noto \
        --student demo-student --reward demo-reward --output "$demo/$1" --device cpu --workers 0 "${@:2}" 2> "$demo/$1.log" ||
        { cat "$demo/$1.log" >&2; exit 2; }
}

# Two at a time, a thread each.
{
    classify rlcf-tune --method rlcf --tune image-encoder --lr 1e-4
    classify reward-alone --method zeroshot --student demo-reward
} &
first=$!
{
    classify kd-tune --method kd --tune image-encoder --lr 1e-4
} &
classify tpt-prompt --method tpt --tune prompt --steps 1 --lr 5e-3
wait
