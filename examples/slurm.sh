#!/bin/bash
# Explain a split on several machines of a SLURM cluster; see docs/many-machines.md.
#
#   sbatch examples/slurm.sh --config cub_resnet50 --data.path "$PWD/data" --out "$PWD/runs/cub"
#
# The images, and the folder of --out, lie where every machine sees them.
#SBATCH --job-name=fgvce
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --open-mode=append
set -u

head=$SLURMD_NODENAME
address=$head:6379
resources=(--num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}")

# A Ray node on each machine. The first one is the head, and the command below runs beside it.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --port=6379 "${resources[@]}" --disable-usage-stats --block &
until ray status --address "$address" > /dev/null 2>&1; do sleep 1; done
others=$((SLURM_JOB_NUM_NODES - 1))
if [ "$others" -gt 0 ]; then
  srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" \
    --no-kill --kill-on-bad-exit=0 \
    ray start --address="$address" "${resources[@]}" --disable-usage-stats --block &
fi

# SLURM signals this script 300 s before the end. It passes the signal on to the command, which
# finishes the parts in hand and exits with 75.
fgvce explain --ray "$address" "$@" &
run=$!
trap 'kill -TERM "$run"' TERM
while true; do
  wait "$run"
  code=$?
  kill -0 "$run" 2> /dev/null || break # else it was `wait` that the signal ended
done
if [ "$code" -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
