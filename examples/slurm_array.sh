#!/bin/bash
# The paper's LeNet experiment as a SLURM array job: one replicate a task.
#
#   mkdir -p logs && sbatch examples/slurm_array.sh && tf-lottery report runs/paper
#
# (the report once the array is done). Submit it where .venv and runs/ lie, on a
# file system that all nodes see. A task that is killed goes on from where it
# was when it is submitted again, as here after a node fails.
#
# examples/slurm_ray.sh shares single networks instead of replicates, on one
# Ray cluster.

#SBATCH --job-name=lottery
#SBATCH --array=0-4
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --output=logs/%A_%a.txt

set -euo pipefail
# shellcheck disable=SC1091
source .venv/bin/activate

tf-lottery run lenet_mnist --scale paper --replicates 5 \
  --controls reinit,shuffle --run_dir runs/paper \
  --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
