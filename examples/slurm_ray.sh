#!/bin/bash
# The paper's LeNet experiment on a Ray cluster inside one Slurm job: one
# network a core of all nodes.
#
#   mkdir -p logs && sbatch examples/slurm_ray.sh
#
# Submit it where .venv and runs/ lie, on a file system that all nodes see. The
# first node runs the command; only it writes runs/paper. Another node that
# fails costs its networks at most a minute (--no-kill keeps the job alive); if
# the first one fails or time is up, submit it again: it goes on from there.

#SBATCH --job-name=lottery
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=04:00:00
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --output=logs/%j.txt

set -euo pipefail
# shellcheck disable=SC1091
source .venv/bin/activate

# Only this job may use the cluster (Ray 2.60; older ones ask for no token).
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
port=$((20000 + SLURM_JOB_ID % 10000)) # Other jobs may share the node.
address=$(hostname):$port
cores=${SLURM_CPUS_PER_TASK:-1}
ray start --head --port="$port" --num-cpus="$cores" --include-dashboard=false
trap 'ray stop' EXIT
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  # One task on each other node; they end with the job.
  srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$(hostname)" --no-kill \
    ray start --address="$address" --num-cpus="$cores" --block &
fi

tf-lottery run lenet_mnist --scale paper --replicates 5 \
  --controls reinit,shuffle --run_dir runs/paper --cluster "$address"
