# The one place for root paths, Python and the GPU. Every launcher sources it; each line can be overridden from the
# environment:  RLCF_ROOT=/data/rlcf bash scripts/rlcf-prompt.sh 0 --datasets A
set -euo pipefail
PROJECT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

RLCF_ROOT="${RLCF_ROOT:-$PROJECT}"                    # holds dataset/, pretrained/ and output/
CLIP_ROOT="${CLIP_ROOT:-$RLCF_ROOT/pretrained/clip}"  # OpenAI's files: ViT-B-16.pt, ViT-L-14.pt, ...
OUTPUT="${OUTPUT:-$RLCF_ROOT/output}"                 # where run folders go
LANGUAGE_MODEL="${LANGUAGE_MODEL:-}"                  # default: pretrained/opt-125m, or else Hugging Face's
PYTHON="${PYTHON:-}"                                  # a Python that has requirements.txt; default: the project's .venv

if [ -z "$PYTHON" ]; then
    bash "$PROJECT/scripts/setup.sh"
    PYTHON="$PROJECT/.venv/bin/python"
fi
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
        VARIANT="$word"
        ARGUMENTS=("${ARGUMENTS[0]}" "${ARGUMENTS[@]:2}")
    fi
}

# launch SCRIPT FLAGS...: run one of the project's scripts on the launcher's GPU; the launcher's flags come last and win.
launch() {
    check_gpu
    "$PYTHON" "$PROJECT/$1" "${@:2}" --gpu "${ARGUMENTS[0]}" "${ARGUMENTS[@]:1}"
}

# experiment TASK PRESET FLAGS...: launch a task with a preset; its run folder has the preset's name.
experiment() {
    launch "$1/main.py" --config "$PROJECT/$1/configs/$2.yaml" \
        --data "$RLCF_ROOT" --clip-root "$CLIP_ROOT" --output "$OUTPUT/$2" "${@:3}"
}
