#!/usr/bin/env bash
# Every figure of one accelerator, in at most nine minutes: JSON under $OUT (or the first argument).
# Given again it continues. Needs jax for the accelerator, flax, optax, orbax-checkpoint, numpy,
# jaxtyping, safetensors and the checkout, nothing else. Further arguments go to accelerator.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
out=${OUT:-${1:?a folder for the results}}
[ -n "${OUT:-}" ] || shift
# Programs compiled before the time was over are not compiled again.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$HOME/.cache/fgvce-accelerator}
# One process follows another; memory is asked for as it is needed, so that a peak can be read.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
python3 benchmarks/speed/accelerator.py --out "$out" "$@"
