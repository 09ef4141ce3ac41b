#!/usr/bin/env bash
# Builds the C kernels with the address and undefined-behaviour sanitizers into a copy of the
# package, and runs the kernels' tests on them. Arguments go to pytest.
set -euo pipefail

cd "$(dirname "$0")/.."
python=$(realpath -s "${PYTHON:-.venv/bin/python}")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT

cp -r fairseq_entmax tests pyproject.toml "$copy"
cd "$copy"
rm -f fairseq_entmax/kernels/native/*.so

build() { # name, flags of its instruction set (as in setup.py)
    local name=$1
    shift
    gcc -O1 -g -std=gnu11 -fopenmp-simd -fno-math-errno -Wno-psabi -fPIC -shared \
        -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer \
        "$@" fairseq_entmax/kernels/native/csrc/*.c -lm -o "fairseq_entmax/kernels/native/_entmax_$name.so"
}
build baseline
if [[ $(uname -m) == x86_64 ]]; then
    build avx2 -mavx2 -mfma
    build avx512 -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma
fi

# -s: a sanitizer writes its report where the process stops
# Python and torch do not free all they allocate, so leaks are not looked for
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$copy
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libstdc++.so)" \
    "$python" -m pytest -q -s -p no:cacheprovider \
    tests/kernels/test_native.py tests/kernels/test_backends.py \
    tests/functional/test_output_layer.py tests/kernels/test_screening.py \
    tests/functional/test_log_entmax.py tests/functional/test_large_alpha.py \
    tests/functional/test_entmax_alpha_tensor.py tests/decoding/test_sparse_step.py "$@"
