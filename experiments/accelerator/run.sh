#!/usr/bin/env bash
# The paper's scratch experiment at full width, all 14,000 updates, on one accelerator: a machine with Python 3.12, JAX
# and PyTorch, without network and TensorFlow. Give it again to go on: it stops by itself after SECONDS.
#
#     bash experiments/accelerator/run.sh WORK OUT [SECONDS] [SETTINGS ...]
#
# WORK keeps the packed data and the run; OUT gets what is to come back (8 files at most, of 16 MiB at most).
# Beforehand, where there is a network, with COMPACT and the wheels in .accelerator/ (docs/engines.md):
#     python -m experiments.accelerator.compact --packed hips.h5 -o .accelerator/compact.h5
set -euo pipefail
work=$1 out=$2 seconds=${3:-500}
shift $(($# < 3 ? $# : 3))
cd "$(dirname "$0")/../.."
mkdir -p "$work" "$out"
export KERAS_BACKEND=jax XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1
if compgen -G '.accelerator/*.whl' > /dev/null && [ ! -d "$work/site" ]; then
  python3 -m pip install -q --no-index --no-deps --no-compile --target "$work/site" .accelerator/*.whl
fi
export PYTHONPATH=$PWD:$work/site
settings=(network.bn_momentum=0.9 network.bn_epsilon=1e-5 training.precision=mixed_bfloat16 training.log_every=100
  training.validate_every=2000 training.checkpoint_every=500 "$@")
if [ ! -f "$work/hips.h5" ]; then
  python3 -m experiments.accelerator.compact --expand .accelerator/compact.h5 -o "$work/hips.h5"
  python3 -m experiments.accelerator.measure --steps "${STEPS:-100}" --width "${WIDTH:-1}" --patch "${PATCH:-64}" 2>&1 | tee "$out/steps.txt"
fi
# 124: stopped by the time limit, everything saved
timeout --signal TERM "$seconds" python3 -m femur3d.train --experiment experiments/scratch.py --dataset "$work/hips.h5" \
  --run "$work/scratch" "${settings[@]/#/--set=}" || [ $? -eq 124 ] || exit 1
cp "$work/scratch/metrics.csv" "$work/scratch/log.txt" "$out/"
python3 -m experiments.accelerator.measure --model "$work/scratch/model" --packed "$work/hips.h5" -o "$out/validation.npz" \
  2>&1 | tee "$out/validation.txt"
