#!/usr/bin/env bash
# The one place for root paths, Python and the GPU. Every launcher sources it; each setting can be overridden from the
# environment:  RLCF_ROOT=/data/rlcf bash scripts/rlcf-prompt.sh 0 --datasets A
set -euo pipefail
PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

RLCF_ROOT="${RLCF_ROOT:-$PROJECT}"                    # holds dataset/, pretrained/ and output/
CLIP_ROOT="${CLIP_ROOT:-$RLCF_ROOT/pretrained/clip}"  # OpenAI's files: ViT-B-16.pt, ViT-L-14.pt, ...
OUTPUT="${OUTPUT:-$RLCF_ROOT/output}"                 # where run folders go
LANGUAGE_MODEL="${LANGUAGE_MODEL:-}"                  # default: pretrained/opt-125m, or else Hugging Face's
PYTHON="${PYTHON:-}"                                  # default: the first Python that has what is required
REQUIREMENTS="${REQUIREMENTS:-requirements.txt}"      # files of what is required, in the project's folder

# The active environment's Python, the project's, that of the PATH; where none has the requirements, one is set up.
find_python() {
    local found files=()
    for found in $REQUIREMENTS; do files+=("$PROJECT/$found"); done
    for PYTHON in ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} "$PROJECT/.venv/bin/python" python python3; do
        if command -v "$PYTHON" > /dev/null && "$PYTHON" "$PROJECT/scripts/has_requirements.py" "${files[@]}"; then
            return
        fi
    done
    bash "$PROJECT/scripts/setup.sh"
    PYTHON="$PROJECT/.venv/bin/python"
}
[ -n "$PYTHON" ] || find_python
if [ -z "$LANGUAGE_MODEL" ]; then
    LANGUAGE_MODEL="$RLCF_ROOT/pretrained/opt-125m"
    [ -d "$LANGUAGE_MODEL" ] || LANGUAGE_MODEL=facebook/opt-125m
fi
ARGUMENTS=("$@")  # the launcher's: the GPU's number, a variant where the launcher has some, further flags

check_gpu() {
    if [[ ! "${ARGUMENTS[0]:-}" =~ ^([0-9]+|cpu)$ ]]; then
        echo "error: the first argument is the GPU's number, or cpu: bash $0 0 [flags]" >&2
        exit 2
    fi
}

# variant NAME...: VARIANT becomes the word after the GPU's number, or the first NAME when there is none.
variant() {
    check_gpu
    VARIANT="$1"
    local word="${ARGUMENTS[1]:---}"
    if [[ "$word" != -* ]]; then
        if [[ " $* " != *" $word "* ]]; then
            echo "error: unknown variant '$word'; there are: $*" >&2
            exit 2
        fi
        # shellcheck disable=SC2034  # the launchers read it
        VARIANT="$word"
        ARGUMENTS=("${ARGUMENTS[0]}" "${ARGUMENTS[@]:2}")
    fi
}

# rlcf_data WORDS...: rlcf-data on the launchers' folders.
rlcf_data() {
    RLCF_ROOT="$RLCF_ROOT" CLIP_ROOT="$CLIP_ROOT" PYTHONPATH="$PROJECT${PYTHONPATH:+:$PYTHONPATH}" \
        "$PYTHON" -m rlcf.data "$@"
}

# run SCRIPT FLAGS...: print the command, look for the data and the weights that it reads, and run it.
run() {
    printf '%q ' "$PYTHON" "$PROJECT/$1" "${@:2}" >&2
    echo >&2
    rlcf_data need "$@"
    "$PYTHON" "$PROJECT/$1" "${@:2}"
}

# launch SCRIPT FLAGS...: run one of the project's scripts on the launcher's GPU; the launcher's flags come last and win.
launch() {
    check_gpu
    run "$@" --gpu "${ARGUMENTS[@]}"
}

# experiment TASK PRESET FLAGS...: launch a task with a preset; its run folder has the preset's name.
experiment() {
    launch "$1/main.py" --config "$PROJECT/$1/configs/$2.yaml" \
        --data "$RLCF_ROOT" --clip-root "$CLIP_ROOT" --output "$OUTPUT/$2" "${@:3}"
}
