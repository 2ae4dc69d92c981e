#!/bin/bash
# Check and measure everything that needs a GPU, within ten minutes and without a network:
#
#     scripts/gpu_check.sh [FOLDER]          # records and logs go to FOLDER (results/gpu/<name of the GPU>)
#     scripts/gpu_check.sh --dry-run         # prints the commands; needs no GPU
#
# PYTHON=... names the Python that has torch and pwlu (.venv/bin/python if it exists, otherwise python3). A step that
# fails or is late does not stop the others; the exit status is then 1, and 2 without a GPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2

dry_run=0
[[ ${1:-} == --dry-run ]] && dry_run=1 && shift
python=${PYTHON:-.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || python=python3

name='import sys, torch
sys.exit("torch finds no usable GPU") if not torch.cuda.is_available() else print(torch.cuda.get_device_name())'
if ((dry_run)); then
    gpu="<name of the GPU>"
elif ! gpu=$("$python" -c "$name"); then
    echo "error: no GPU to check; --dry-run prints what would run" >&2
    exit 2
fi
folder=${1:-results/gpu/${gpu// /_}}
((dry_run)) || mkdir -p "$folder" || exit 2
failed=0

# step NAME SECONDS COMMAND...: run it with a time limit, its output in a log, and say how it ended.
step() {
    local name=$1 limit=$2 began=$SECONDS status=ok
    shift 2
    if ((dry_run)); then
        echo "timeout $limit ${*@Q} >$folder/$name.log"
        return
    fi
    if ! timeout --kill-after=5 "$limit" "$@" >"$folder/$name.log" 2>&1; then
        status="FAILED, see $folder/$name.log"
        failed=1
    fi
    printf '%-10s %4d s  %s\n' "$name" $((SECONDS - began)) "$status"
}

loaded='import pwlu; info = pwlu.build_info(); print(info); assert info["cuda_status"] == "loaded", info["cuda_status"]'
training=(--config configs/digits_r18_pwlu.yaml epochs=2 phase1_epochs=1 schedule.warmup_epochs=1 runtime.device=cuda)
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT

step build 15 "$python" -c "$loaded"
step tests 165 "$python" -m pytest -q -m gpu pwlu_ext/tests tests
step operator 105 "$python" -m pwlu_ext.benchmarks.operator_gpu --output "$folder/operator.json"
step latency 115 "$python" -m tools.latency --output "$folder/latency.json" --device cuda --training-step \
    --models resnet18 --runtimes eager,cuda-graph --iterations 50 --warm-up 5
step loop 25 "$python" -m tools.loop_overhead --output "$folder/loop.json" --device cuda --steps 400
step training 55 "$python" -m torch.distributed.run --standalone --nproc-per-node=gpu \
    train_imagenet.py "${training[@]}" output="$run"
if ((dry_run)) || command -v compute-sanitizer >/dev/null; then
    step sanitizer 85 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 1 \
        "$python" -m pwlu_ext.benchmarks.sanitizer_case
else
    echo "sanitizer  not run: compute-sanitizer is not on PATH"
fi
exit "$failed"
