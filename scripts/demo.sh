#!/usr/bin/env bash
# Set everything up and show RLCF on the embedded world: pictures no model was trained on, tiny models, no download.
#   bash scripts/demo.sh                  # classification, retrieval and captioning
#   bash scripts/demo.sh classification   # that one alone
#   bash scripts/demo.sh retrieval
#   bash scripts/demo.sh captioning
# Leaves output/demo/: the pictures, a run folder a method, results.md, classification.png, captioning.png, and a page of
# each task to look at the runs with: classification.html, retrieval.html, captioning.html.
source "$(dirname "$0")/env.sh"

demo="$OUTPUT/demo"
tasks="${ARGUMENTS[0]:-all}"
case "$tasks" in
    all) lines=. ;;
    classification) lines='^(world single|classify) ' ;;
    retrieval) lines='^(world scenes|retrieve) ' ;;
    captioning) lines='^(world scenes|caption) ' ;;
    *)
        echo "error: unknown demo '$tasks'; there are: all classification retrieval captioning" >&2
        exit 2
        ;;
esac
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1
export PYTHON demo
rm -rf "$demo"
mkdir -p "$demo"
cd "$PROJECT"

# run NAME SCRIPT FLAGS...: an entry script of the real experiments, on the embedded models; progress goes to NAME.log.
run() {
    if ! "$PYTHON" "$2" --student demo-student --reward demo-reward --output "$demo/$1" --device cpu --workers 0 \
        "${@:3}" 2> "$demo/$1.log"; then
        cat "$demo/$1.log" >&2
        return 255  # the last that `two_at_a_time` starts
    fi
}

# The settings were chosen on pictures of the validation seed; these are of the test seed.
classify() {
    run "$1" classification/main.py --data "$demo/single" --datasets folder:clean folder:blur folder:fog folder:noto \
        --views 12 --selection 0.5 "${@:2}"
}
retrieve() {
    run "$1" retrieval/main.py --data "$demo/scenes" --datasets json:clean json:blur --limit 150 "${@:2}"
}
caption() {
    run "$1" caption/main.py --data "$demo/scenes" --datasets json:clean json:blur --checkpoint "demo-$1" \
        --language-model demo-lm --sample-k 10 --steps 4 --lr 1e-4 --weight-decay 0 --images-at-once 8 \
        --evaluate --evaluate-clip demo-student --evaluate-prefix "" --no-evaluate-java
}
world() {
    "$PYTHON" -m demo.world "$demo/$1" --styles "${@:2}"
}
export -f run classify retrieve caption world

# Commands, one a line, each on one thread; a line that is not about the demo asked for is left out.
two_at_a_time() {
    grep -E "$lines" | xargs -P 2 -I COMMAND bash -euc COMMAND || exit 2
}

two_at_a_time << END
world single blur fog noto --per-class 2
world scenes clean blur --scenes 100
world single clean --per-class 1
END
tower="--tune image-encoder --lr 1e-4 --batchnorm frozen"
two_at_a_time << END
classify anchored --method rlcf $tower --candidates both --learn-from-centre --kl-weight 0.1 --steps 5
classify rlcf --method rlcf $tower
caption clipcap
caption capdec
classify kd --method kd $tower
retrieve retrieval --method rlcf --steps 5 --lr 1e-4 --sample-k 10 --t2i-sample-k 5
classify tpt --method tpt --tune prompt --steps 1 --lr 5e-3 --images-at-once 8
classify zero-reward --method zero --voter reward
classify reward-alone --method reward --pool centre
classify product --method ensemble --pool centre
retrieve retrieval-reward-alone --method zeroshot --student demo-reward
END
"$PYTHON" -m demo.pictures "$demo" > "$demo/pictures.log" 2>&1 &
"$PYTHON" -m demo.report "$demo"
wait $! || { cat "$demo/pictures.log" >&2; exit 2; }
cat "$demo/pictures.log"

# page NAME RUN...: the page of a task's runs, those that were made.
page() {
    local runs=()
    for run in "${@:2}"; do
        [ ! -d "$demo/$run" ] || runs+=("$demo/$run")
    done
    [ ${#runs[@]} -eq 0 ] || "$PYTHON" -m rlcf.report "${runs[@]}" --output "$demo/$1.html" 2> "$demo/$1.log" ||
        { cat "$demo/$1.log" >&2; exit 2; }
}
page classification anchored rlcf kd tpt zero-reward reward-alone product
page retrieval retrieval retrieval-reward-alone
page captioning clipcap capdec
