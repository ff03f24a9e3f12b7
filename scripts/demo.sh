#!/usr/bin/env bash
# Set everything up and show RLCF on the embedded world: pictures no model was trained on, tiny models, no download.
#   bash scripts/demo.sh                  # classification, retrieval and captioning
#   bash scripts/demo.sh classification   # that one alone
# Leaves output/demo/: the pictures, a run folder a method, results.md, classification.png, captioning.png.
source "$(dirname "$0")/env.sh"

demo="$OUTPUT/demo"
tasks="${ARGUMENTS[0]:-all}"
if [[ "$tasks" != all && "$tasks" != classification ]]; then
    echo "error: unknown demo '$tasks'; there are: all classification" >&2
    exit 2
fi
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
rm -rf "$demo"
mkdir -p "$demo"
cd "$PROJECT"

# run NAME SCRIPT FLAGS...: an entry script of the real experiments, on the embedded models; progress goes to NAME.log.
run() {
    if ! "$PYTHON" "$2" --student demo-student --reward demo-reward --output "$demo/$1" --device cpu --workers 0 \
        "${@:3}" 2> "$demo/$1.log"; then
        cat "$demo/$1.log" >&2
        return 2
    fi
}

# The settings were chosen on pictures of the validation seed; these are of the test seed.
classify() {
    run "$1" classification/main.py --data "$demo/single" --datasets folder:clean folder:blur folder:fog folder:noto \
        --views 12 --selection 0.5 "${@:2}"
}
retrieve() {
    [ "$tasks" = all ] || return 0
    run "$1" retrieval/main.py --data "$demo/scenes" --datasets json:clean json:blur json:fog --limit 150 "${@:2}"
}
caption() {
    [ "$tasks" = all ] || return 0
    run "$1" caption/main.py --data "$demo/scenes" --datasets json:clean json:blur --checkpoint "demo-$1" \
        --language-model demo-lm --sample-k 10 --steps 4 --lr 1e-4 --weight-decay 0 \
        --evaluate --evaluate-clip demo-student --evaluate-prefix "" --no-evaluate-java
}
encoder=(--tune image-encoder --lr 1e-4 --batchnorm frozen)

"$PYTHON" -m rlcf.demo.world "$demo/single" --styles clean --per-class 1
"$PYTHON" -m rlcf.demo.world "$demo/single" --styles blur fog noto --per-class 2
if [ "$tasks" = all ]; then
    "$PYTHON" -m rlcf.demo.world "$demo/scenes" --styles clean blur fog --scenes 100
fi
{   # two at a time, a thread each
    classify rlcf-tune --method rlcf "${encoder[@]}"
    classify tpt-prompt --method tpt --tune prompt --steps 1 --lr 5e-3
    classify reward-alone --method zeroshot --student demo-reward
    caption clipcap
    retrieve retrieval --method rlcf --steps 5 --lr 1e-4 --sample-k 10 --t2i-sample-k 5
} & first=$!
{
    classify kd-tune --method kd "${encoder[@]}"
    classify rlcf-prompt --method rlcf --tune prompt --lr 7e-3
    caption capdec
    retrieve retrieval-reward-alone --method zeroshot --student demo-reward
} & second=$!
wait "$first"
wait "$second"
"$PYTHON" -m rlcf.demo.report "$demo"
"$PYTHON" -m rlcf.demo.pictures "$demo"
