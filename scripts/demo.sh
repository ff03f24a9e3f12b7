#!/usr/bin/env bash
# Set everything up and show RLCF on the embedded world: pictures no model was trained on, two tiny CLIPs, no download.
#   bash scripts/demo.sh
# Leaves output/demo/: the pictures, a run folder a method, results.md, classification.png.
source "$(dirname "$0")/env.sh"

demo="$OUTPUT/demo"
styles="clean blur pixelate fog noto"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
rm -rf "$demo"
mkdir -p "$demo"
cd "$PROJECT"

# run NAME SCRIPT FLAGS...: an entry script of the real experiments, on the embedded models; its chatter goes to NAME.log.
run() {
    if ! "$PYTHON" "$2" --student demo-student --reward demo-reward --output "$demo/$1" --device cpu --workers 0 \
        "${@:3}" 2> "$demo/$1.log"; then
        cat "$demo/$1.log" >&2
        return 2
    fi
}

# Settings chosen on the validation pictures (seed 1001); these are the test pictures.
classify() {
    # shellcheck disable=SC2086
    run "$1" classification/main.py --data "$demo/data" --datasets ${styles// / folder:} --views 16 --selection 0.5 "${@:2}"
}
encoder="--tune image-encoder --lr 1e-4 --batchnorm frozen"

"$PYTHON" -m rlcf.demo.world "$demo/data" --styles $styles --per-class 2
styles="folder:$styles"
{   # two at a time, a thread each
    classify rlcf-tune --method rlcf $encoder
    classify tpt-prompt --method tpt --tune prompt --steps 1 --lr 5e-3
} & first=$!
{
    classify reward-alone --method zeroshot --student demo-reward
    classify kd-tune --method kd $encoder
    classify rlcf-prompt --method rlcf --tune prompt --lr 7e-3
} & second=$!
wait "$first"
wait "$second"
"$PYTHON" -m rlcf.demo.report "$demo"
